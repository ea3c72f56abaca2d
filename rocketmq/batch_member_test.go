package rocketmq_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// eachTransport runs a test for both transports, unless that of rocketmq-client-go can't be used here.
func eachTransport(t *testing.T, test func(t *testing.T, transport rocketmq.Transport)) {
	t.Parallel()
	for _, tr := range transports {
		t.Run(tr.String(), func(t *testing.T) {
			if tr == rocketmq.ClientGo {
				usesClient(t)
			}
			t.Parallel()
			test(t, tr)
		})
	}
}

// sendBatch stores a batch as Java clients send it: each message has a unique key, and the batch has one, too.
func sendBatch(t *testing.T, mq *rocketmqtest.Server, topic string, members ...map[string]string) {
	t.Helper()
	conn, err := remoting.Dial(t.Context(), mq.BrokerAddr(), remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var body []byte
	for i, properties := range members {
		body = remoting.AppendBatchMember(body, properties, []byte{'0' + byte(i)})
	}
	if _, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.SendBatchMessage, Body: body, Ext: map[string]string{
		"a": "p", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000", "h": "0",
		"i": remoting.EncodeProperties(map[string]string{"UNIQ_KEY": "batch", "WAIT": "true"}), "j": "0", "k": "false", "l": "0", "m": "true",
	}}); err != nil {
		t.Fatal(err)
	}
}

func batch(n int) []map[string]string {
	var members []map[string]string
	for i := range n {
		members = append(members, map[string]string{"UNIQ_KEY": "own-" + strconv.Itoa(i), "WAIT": "true", "TAGS": "t"})
	}
	return members
}

// TestBatchMembersHaveTheirOwnKeys: brokers before 5.5 append the batch's unique key to each member of a batch. With it alone, members
// would be taken for copies of one message.
func TestBatchMembersHaveTheirOwnKeys(t *testing.T) {
	for _, version := range []rocketmqtest.Version{rocketmqtest.RocketMQ49, rocketmqtest.RocketMQ53, rocketmqtest.RocketMQ55} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			eachTransport(t, func(t *testing.T, transport rocketmq.Transport) {
				mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: version})
				mq.CreateTopic("topic", 1)
				c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, transport })
				came, _ := collect(t, c, "group", "topic")
				sendBatch(t, mq, "topic", batch(3)...)
				sendRaw(t, mq, "topic", 0, map[string]string{"UNIQ_KEY": "single"}, []byte("3"))
				var keys []string
				for range 4 {
					d := next(t, came)
					keys = append(keys, string(d.Body)+"="+d.ID)
					if len(d.Properties) > 0 || d.Unreadable != nil {
						t.Errorf("got %+v", d)
					}
				}
				slices.Sort(keys)
				if got := strings.Join(keys, " "); got != "0=own-0 1=own-1 2=own-2 3=single" {
					t.Errorf("got %s", got)
				}
			})
		})
	}
}

// TestBatchMemberWaitsForItsKey: a member whose key can't be read yet is held, and one whose key can't be read any more is delivered with
// the reason and without the batch's key.
func TestBatchMemberWaitsForItsKey(t *testing.T) {
	usesClient(t) // the driver's own transport reads no member twice
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 1)
	var refusals atomic.Int32
	f := newFront(t, mq, func(request, response *remoting.Command) {
		if request.Code != remoting.PullMessage || request.Ext["maxMsgNums"] != "1" {
			return
		}
		switch {
		case request.Ext["queueOffset"] == "0" && refusals.Add(1) <= 2:
			*response = *request.Answer(remoting.SystemBusy, "")
		case request.Ext["queueOffset"] == "1":
			response.Code, response.Body = remoting.PullOffsetMoved, nil
		}
	})
	c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{f.address}, rocketmq.ClientGo })
	came, _ := collect(t, c, "group", "topic")
	sendBatch(t, mq, "topic", batch(2)...)
	for range 2 {
		switch d := next(t, came); {
		case d.Offset == 0 && (d.ID != "own-0" || d.Unreadable != nil || refusals.Load() != 3):
			t.Errorf("after %d refusals: %+v", refusals.Load(), d)
		case d.Offset == 1 && (d.ID != "" || d.Unreadable == nil || string(d.Body) != "1"):
			t.Errorf("got %+v", d)
		}
	}
}
