package rocketmq_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// damages are ways in which a stored record can be damaged, by the body of the message that gets it.
var damages = map[string]func(record []byte) []byte{
	"checksum":           func(b []byte) []byte { b[8] ^= 1; return b },
	"magic":              func(b []byte) []byte { b[4] ^= 1; return b },
	"negative size":      func(b []byte) []byte { b[0] = 0xff; return b },
	"huge size":          func(b []byte) []byte { b[0] = 0x7f; return b },
	"zeros":              func(b []byte) []byte { clear(b); return b },
	"cut":                func(b []byte) []byte { return b[:len(b)-9] },
	"negative body":      func(b []byte) []byte { b[84] = 0xff; return b },
	"long body":          func(b []byte) []byte { b[86] = 0x7f; return b },
	"topic":              func(b []byte) []byte { b[88+len("topic")+1] ^= 1; return b },
	"length of topic":    func(b []byte) []byte { b[88+len("length of topic")] = 0xff; return b },
	"offset":             func(b []byte) []byte { binary.BigEndian.PutUint64(b[20:], 1<<40); return b },
	"offset of another":  func(b []byte) []byte { binary.BigEndian.PutUint64(b[20:], 0); return b },
	"negative offset":    func(b []byte) []byte { binary.BigEndian.PutUint64(b[20:], 1<<63); return b },
	"name of a property": func(b []byte) []byte { return []byte(strings.Replace(string(b), "UNIQ_KEY\x01", "UNIQ_KEY\x02", 1)) },
}

// damage alters the records in the response to a pull whose bodies name a damage.
func damage(t *testing.T, response *remoting.Command) {
	records, err := remoting.DecodeRecords(response.Body)
	if err != nil {
		t.Error(err)
		return
	}
	var out []byte
	for _, r := range records {
		b, err := r.Append(nil)
		if err != nil {
			t.Error(err)
			return
		}
		if alter := damages[string(r.Body)]; alter != nil {
			b = alter(b)
		}
		out = append(out, b...)
	}
	response.Body = out
}

// TestDamagedRecordIsDelivered: a record that can't be decoded is delivered with the reason, and those before and behind it are read.
func TestDamagedRecordIsDelivered(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", len(damages)) // a queue for each damage
	f := newFront(t, mq, func(request, response *remoting.Command) {
		if request.Code == remoting.PullMessage && response.Code == remoting.Success {
			damage(t, response)
		}
	})
	names := slices.Sorted(maps.Keys(damages))
	bodies := func(damage string) []string { return []string{"first", damage, "third", damage, damage, "last"} }
	count := 0
	for queue, name := range names {
		for _, body := range bodies(name) {
			sendRawTo(t, mq, "topic", queue, 0, map[string]string{"UNIQ_KEY": body, "a": "b"}, []byte(body))
			count++
		}
	}
	came, k := collect(t, own(t, f.address), "group", "topic")
	type place struct {
		queue  int
		offset int64
	}
	got := map[place]broker.Delivery{}
	for range count {
		d := next(t, came)
		got[place{d.Queue, d.Offset}] = d
	}
	for queue, name := range names {
		for i, body := range bodies(name) {
			d := got[place{queue, int64(i)}]
			if damaged := body == name; damaged != (d.Unreadable != nil) || !damaged && string(d.Body) != body || len(d.Body) == 0 || d.Topic != "topic" || d.Broker != "broker-a" {
				t.Errorf("%s, offset %d: got %+v", name, i, d)
			}
		}
	}
	poll.Succeeds(t, 10*time.Second, k.Err)
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := remoting.Dial(t.Context(), mq.BrokerAddr(), remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for queue, name := range names {
		response, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: map[string]string{
			"consumerGroup": "group", "topic": "topic", "queueId": strconv.Itoa(queue), "setZeroIfNotFound": "false",
		}})
		if err != nil || response.Ext["offset"] != strconv.Itoa(len(bodies(name))) {
			t.Errorf("%s: the group is at %s of %d, %v", name, response.Ext["offset"], len(bodies(name)), err)
		}
	}
}

// TestRecordDamagedOnTheWayIsReadAgain: a record that comes whole when it is read again isn't put aside.
func TestRecordDamagedOnTheWayIsReadAgain(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 1)
	var mu sync.Mutex
	left := 3
	f := newFront(t, mq, func(request, response *remoting.Command) {
		mu.Lock()
		defer mu.Unlock()
		if request.Code == remoting.PullMessage && response.Code == remoting.Success && left > 0 {
			left--
			damage(t, response)
		}
	})
	sendRaw(t, mq, "topic", 0, nil, []byte("first"))
	sendRaw(t, mq, "topic", 0, nil, []byte("checksum"))
	sendRaw(t, mq, "topic", 0, nil, []byte("last"))
	came, _ := collect(t, own(t, f.address), "group", "topic")
	got := map[string]bool{}
	for range 3 {
		d := next(t, came)
		if d.Unreadable != nil {
			t.Errorf("%s: %v", d.Body, d.Unreadable)
		}
		got[string(d.Body)] = true
	}
	if len(got) != 3 || left != 0 {
		t.Errorf("got %v, %d left", got, left)
	}
}

// TestRecordOfUnknownLengthHoldsItsQueue: nothing is passed over while it isn't known where a record ends. Err names the offset and what an
// operator can do, and another queue is read on.
func TestRecordOfUnknownLengthHoldsItsQueue(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 1)
	mq.CreateTopic("other", 1)
	f := newFront(t, mq, func(request, response *remoting.Command) {
		if request.Code == remoting.PullMessage && response.Code == remoting.Success && request.Ext["topic"] == "topic" {
			if n, _ := strconv.Atoi(request.Ext["queueOffset"]); n <= 1 {
				response.Body = []byte("nonsense")
				response.Ext["nextBeginOffset"] = "3"
			}
		}
	})
	c := own(t, f.address)
	for i := range 3 {
		sendRaw(t, mq, "topic", 0, nil, fmt.Append(nil, i))
	}
	came, k := collect(t, c, "group", "topic", "other")
	poll.Succeeds(t, 20*time.Second, func() error {
		if err := k.Err(); err == nil || !strings.Contains(err.Error(), "offset 0") || !strings.Contains(err.Error(), "resetOffsetByTime") {
			return fmt.Errorf("got %w", errors.Join(err, errors.New("want the offset and what to do")))
		}
		return nil
	})
	sendRaw(t, mq, "other", 0, nil, []byte("other"))
	if d := next(t, came); d.Topic != "other" {
		t.Errorf("got %+v", d)
	}
	// The operator moves the group.
	f.request(t.Context(), &remoting.Command{Code: remoting.ResetOffset, Ext: map[string]string{"group": "group", "topic": "topic"},
		Body: []byte(`{"offsetTable":[{"brokerName":"broker-a","queueId":0,"topic":"topic","offset":2}]}`)})
	if d := next(t, came); d.Topic != "topic" || d.Offset != 2 || d.Unreadable != nil {
		t.Errorf("got %+v", d)
	}
	poll.Succeeds(t, 10*time.Second, k.Err)
}
