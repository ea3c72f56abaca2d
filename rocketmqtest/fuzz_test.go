package rocketmqtest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

func FuzzHeartbeat(f *testing.F) {
	f.Add([]byte(`{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[{"groupName":"g","subscriptionDataSet":[{"topic":"t","subString":"a || b","subVersion":1,"expressionType":"TAG"}]}]}`))
	f.Add([]byte(`{"consumerDataSet":[{}]}`))
	f.Add([]byte(`[1]`))
	call := server(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		response := call(remoting.Heartbeat, nil, body)
		if _, err := decodeHeartbeat(body); (err == nil) != (response.Code == remoting.Success) {
			t.Errorf("%q: %v, response %v", body, err, response.Err())
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"consumerGroup":"g","clientId":"c","mqSet":[{"topic":"t","brokerName":"broker-a","queueId":1}]}`))
	f.Add([]byte(`{"mqSet":[{}]}`))
	f.Add([]byte(`null`))
	call := server(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var held struct {
			Queues []queueName `json:"lockOKMQSet"`
		}
		response := call(remoting.LockQueues, nil, body)
		if response.Code != remoting.Success {
			return
		}
		if err := remoting.DecodeJSON(response.Body, &held); err != nil {
			t.Fatal(err)
		}
		b, err := decodeLock(body)
		if err != nil || len(held.Queues) != len(b.Queues) { // there is no other holder
			t.Errorf("%q: got %d locks, %v", body, len(held.Queues), err)
		}
		if response := call(remoting.UnlockQueues, nil, body); response.Code != remoting.Success {
			t.Errorf("%q: unlock: %v", body, response.Err())
		}
	})
}

func FuzzSendBatch(f *testing.F) {
	member := "\x00\x00\x00\x1f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x02hi\x00\x07TAGS\x01a\x02"
	f.Add([]byte(member))
	f.Add([]byte(member + member))
	f.Add([]byte(member + "\x7f\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := decodeBatch(body)
		if (err == nil) != (len(members) > 0) {
			t.Errorf("%q: %d members, %v", body, len(members), err)
		}
		n := 0
		for _, m := range members {
			n += len(m.body)
		}
		if n > len(body) {
			t.Errorf("%q: bodies of %d bytes", body, n)
		}
	})
}

func FuzzSend(f *testing.F) {
	f.Add("t", "0", "0", "UNIQ_KEY\x01k\x02", "0", "16", "false", "hello")
	f.Add("%RETRY%g", "-1", "4", "DELAY\x013\x02", "17", "", "", "hello")
	f.Add("t", "1", "8", "TRAN_MSG\x01true\x02PGROUP\x01p\x02", "", "x", "true", "\x00\x00\x00\x1f")
	f.Add("nowhere", "9999999999", "-1", "TIMER_DELIVER_MS\x019\x02", "1", "1", "false", "")
	call := server(f)
	f.Fuzz(func(t *testing.T, topic, queue, sysFlag, properties, reconsumed, most, batch, body string) {
		a := call(remoting.SendMessageV2, map[string]string{
			"a": "p", "b": topic, "d": "4", "e": queue, "f": sysFlag, "g": "1", "h": "0", "i": properties, "j": reconsumed, "l": most, "m": batch,
		}, []byte(body))
		if a.Code != remoting.Success {
			if a.Remark == "" {
				t.Error("refused without a reason")
			}
			return
		}
		for id := range strings.SplitSeq(a.Ext["msgId"], ",") {
			_, position, err := remoting.ParseOffsetID(id)
			if err != nil {
				t.Fatal(err)
			}
			stored := call(remoting.MessageByID, map[string]string{"offset": decimal(position)}, nil)
			if records, err := remoting.DecodeRecords(stored.Body); err != nil || len(records) != 1 {
				t.Errorf("%d records are stored, %v", len(records), err)
			}
		}
	})
}

func FuzzSendBack(f *testing.F) {
	call := server(f)
	sent := call(remoting.SendMessageV2, map[string]string{"a": "p", "b": "t", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "i": ""}, []byte("hello"))
	_, position, err := remoting.ParseOffsetID(sent.Ext["msgId"])
	if err != nil {
		f.Fatal(err)
	}
	f.Add("g", decimal(position), "0", "16")
	f.Add("", decimal(position), "-1", "")
	f.Add("g", decimal(position+1), "99", "x")
	f.Add("g", "-9223372036854775808", "9223372036854775807", "-1")
	f.Fuzz(func(t *testing.T, group, offset, level, most string) {
		a := call(remoting.SendMessageBack, map[string]string{"group": group, "offset": offset, "delayLevel": level, "maxReconsumeTimes": most}, nil)
		if (a.Code == remoting.Success) != (a.Remark == "") {
			t.Errorf("response is %d %q", a.Code, a.Remark)
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add("*", "TAG", "a")
	f.Add("a || b", "", "b")
	f.Add("||", "TAG", "")
	f.Add("a > 1", "SQL92", "a")
	f.Fuzz(func(t *testing.T, expression, kind, tag string) {
		filter, refusal := newFilter(&request{Command: &remoting.Command{}}, expression, kind)
		if refusal != nil {
			return
		}
		trimmed := strings.TrimSpace(tag)
		if trimmed == tag && tag != "" && expression == tag && !strings.Contains(tag, "||") && !filter.match(tag) {
			t.Errorf("%q doesn't match itself", tag)
		}
	})
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// server starts a server with the topic t for a fuzz target, and returns a function that sends requests to its broker.
func server(f *testing.F) func(remoting.Code, map[string]string, []byte) *remoting.Command {
	s := RunT(f, Config{MaxBytes: 8 << 20, MaxMessageSize: 1 << 20})
	s.CreateTopic("t", 2)
	return func(code remoting.Code, ext map[string]string, body []byte) *remoting.Command {
		response := s.handle(&request{Command: &remoting.Command{Code: code, Ext: ext, Body: body}, from: &session{endpoint: s.broker, closed: true}})
		if response == nil {
			f.Fatalf("no response to %d", code)
		}
		return response
	}
}
