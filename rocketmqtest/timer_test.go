package rocketmqtest_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

const timerTopic = "rmq_sys_wheel_timer"

const timerRefused = "timer message illegal, the delay time should not be bigger than the max delay 259200000ms; or if set del msg, the delay time should be bigger than the current time"

// TestTimerProperties shows which properties make a message wait, and for how long.
func TestTimerProperties(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	in := func(w *wire, d time.Duration) string { return millis(w.mq.Clock().Now().Add(d)) }
	for _, c := range []struct {
		name       string
		config     rocketmqtest.Config
		properties func(w *wire) []string
		waits      time.Duration // 0: not at all
		code       remoting.Code
		remark     string
	}{
		{name: "none", properties: func(*wire) []string { return nil }},
		{name: "deliver", properties: func(w *wire) []string { return []string{"TIMER_DELIVER_MS", in(w, minute)} }, waits: minute},
		{name: "millis", properties: func(*wire) []string { return []string{"TIMER_DELAY_MS", "60000"} }, waits: minute},
		{name: "seconds", properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "60"} }, waits: minute},
		{name: "seconds first", properties: func(*wire) []string {
			return []string{"TIMER_DELAY_SEC", "60", "TIMER_DELAY_MS", "x", "TIMER_DELIVER_MS", "x"}
		}, waits: minute},
		{name: "millis before deliver", properties: func(*wire) []string { return []string{"TIMER_DELAY_MS", "60000", "TIMER_DELIVER_MS", "x"} }, waits: minute},
		{name: "level drops them", properties: func(*wire) []string { return []string{"DELAY", "5", "TIMER_DELAY_SEC", "x", "TIMER_DELIVER_MS", "x"} }, waits: minute},
		{name: "no level", properties: func(*wire) []string { return []string{"DELAY", "0", "TIMER_DELAY_SEC", "60"} }, waits: minute},
		{name: "past", properties: func(*wire) []string { return []string{"TIMER_DELIVER_MS", "1"} }},
		{name: "past delay", properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "-5"} }},
		{name: "turned already", properties: func(*wire) []string { return []string{"TIMER_OUT_MS", "1", "TIMER_DELAY_SEC", "60"} }},
		{name: "malformed", properties: func(*wire) []string { return []string{"TIMER_DELIVER_MS", "x"} }, code: remoting.MessageIllegal, remark: timerRefused},
		{name: "within the horizon", properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "259200"} }, waits: 72 * time.Hour},
		{name: "beyond the horizon", properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "259201"} }, code: remoting.MessageIllegal, remark: timerRefused},
		{name: "deletes in the past", properties: func(*wire) []string { return []string{"TIMER_DELIVER_MS", "1", "TIMER_DEL_UNIQKEY", "k"} }, code: remoting.MessageIllegal, remark: timerRefused},
		{name: "deletes without an instant", properties: func(*wire) []string { return []string{"TIMER_DEL_UNIQKEY", "k"} }},
		{name: "none are served", config: rocketmqtest.Config{NoTimers: true}, properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "60"} },
			code: remoting.SystemError, remark: "accurate timer message is not enabled, timerWheelEnable is false"},
		{name: "none are served, none wanted", config: rocketmqtest.Config{NoTimers: true}, properties: func(*wire) []string { return nil }},
		{name: "4.9 doesn't know them", config: rocketmqtest.Config{Version: rocketmqtest.RocketMQ49}, properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "60"} }},
		{name: "DMS doesn't either", config: rocketmqtest.Config{DMS: true}, properties: func(*wire) []string { return []string{"TIMER_DELAY_SEC", "60"} }},
		{name: "DMS", config: rocketmqtest.Config{DMS: true}, properties: func(w *wire) []string { return []string{"__STARTDELIVERTIME", in(w, minute)} }, waits: minute},
		{name: "DMS past", config: rocketmqtest.Config{DMS: true}, properties: func(*wire) []string { return []string{"__STARTDELIVERTIME", "1"} }},
		{name: "DMS malformed", config: rocketmqtest.Config{DMS: true}, properties: func(*wire) []string { return []string{"__STARTDELIVERTIME", "x"} }, code: remoting.MessageIllegal, remark: timerRefused},
		{name: "DMS only", properties: func(w *wire) []string { return []string{"__STARTDELIVERTIME", in(w, minute)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := run(t, c.config)
			sent := w.mq.Clock().Now()
			a := w.try("m", c.properties(w)...)
			wantResponse(t, "send", a, c.code, c.remark)
			if n := len(w.delivered()); (n > 0) != (c.waits == 0 && c.code == 0) {
				t.Errorf("%d delivered at once", n)
			}
			if c.waits == 0 {
				return
			}
			w.mq.FastForward(c.waits + 2*time.Second)
			got := w.read(wireTopic, 1)
			if len(got) != 1 {
				t.Fatalf("%d delivered in the end, want 1", len(got))
			}
			if early := sent.Add(c.waits - time.Millisecond).Sub(got[0].Stored); early > 0 {
				t.Errorf("%v early", early)
			}
		})
	}
}

// TestTimerPrecision shows that a timer is never early, and late by less than the precision.
func TestTimerPrecision(t *testing.T) {
	t.Parallel()
	const n, step = 200, 50 * time.Millisecond
	for _, precision := range []time.Duration{100 * time.Millisecond, time.Second} {
		t.Run(precision.String(), func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{TimerPrecision: precision})
			random := rand.New(rand.NewPCG(1, 2))
			begin := w.mq.Clock().Now().Truncate(time.Second).Add(10 * time.Second)
			due := map[string]time.Time{}
			for i := range n {
				at := begin.Add(time.Duration(random.IntN(5000)) * time.Millisecond)
				if i%10 == 0 {
					at = at.Truncate(precision)
				}
				due[fmt.Sprint(i)] = at
				w.send(fmt.Sprint(i), "TIMER_DELIVER_MS", millis(at))
			}
			for w.mq.Clock().Now().Before(begin.Add(7 * time.Second)) {
				before := w.mq.Clock().Now()
				w.mq.FastForward(step)
				if real := w.mq.Clock().Now().Sub(before) - step; real > step {
					t.Logf("the machine took %v", real)
				}
			}
			got := w.read(wireTopic, 1)
			if len(got) != n {
				t.Fatalf("%d delivered, want %d", len(got), n)
			}
			for _, r := range got {
				at := due[string(r.Body)]
				if r.Stored.Before(at) {
					t.Errorf("%s is %v early", r.Body, at.Sub(r.Stored))
				}
				slot, err := strconv.ParseInt(r.Properties["TIMER_OUT_MS"], 10, 64)
				if ends := time.UnixMilli(slot).Add(precision); err != nil || slot%precision.Milliseconds() != 0 || ends.Before(at) || ends.Sub(at) >= precision {
					t.Errorf("%s for %d is in slot %d, %v", r.Body, at.UnixMilli(), slot, err)
				}
			}
		})
	}
}

func TestTimerIsStored(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	a := w.send("m", "TIMER_DELAY_SEC", "60", "UNIQ_KEY", "key", "TAGS", "tag", "mine", "1")
	if a.Ext["queueId"] != "1" || a.Ext["queueOffset"] != "0" || a.Ext["transactionId"] != "key" || a.Ext["recallHandle"] == "" {
		t.Errorf("sent: %v", a.Ext)
	}
	waits := w.read(timerTopic, 0)
	if len(waits) != 1 || waits[0].Properties["REAL_TOPIC"] != wireTopic || waits[0].Properties["REAL_QID"] != "1" || waits[0].Properties["TIMER_OUT_MS"] == "" {
		t.Fatalf("waits: %+v", waits)
	}
	w.mq.FastForward(2 * time.Minute)
	r := w.read(wireTopic, 1)[0]
	p := r.Properties
	if p["REAL_TOPIC"] != wireTopic || p["TIMER_DELAY_SEC"] != "60" || p["TIMER_ENQUEUE_MS"] == "" || !sameTime(p["TIMER_DEQUEUE_MS"], r.Stored) ||
		p["TAGS"] != "tag" || p["mine"] != "1" || !r.Born.Equal(waits[0].Born) {
		t.Errorf("delivered %+v", r)
	}
}

// sameTime tells whether a number of milliseconds is an instant or one shortly before.
func sameTime(ms string, at time.Time) bool {
	n, err := strconv.ParseInt(ms, 10, 64)
	d := at.Sub(time.UnixMilli(n))
	return err == nil && d >= 0 && d < time.Second
}

// TestTimerDelete shows which key deletes a timer of which version.
func TestTimerDelete(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		config  rocketmqtest.Config
		key     string
		deletes bool
	}{
		{"5.3", rocketmqtest.Config{}, wireTopic + "+key", true},
		{"5.3, plain", rocketmqtest.Config{}, "key", false},
		{"5.5", rocketmqtest.Config{Version: rocketmqtest.RocketMQ55}, "key", true},
		{"5.5, with topic", rocketmqtest.Config{Version: rocketmqtest.RocketMQ55}, wireTopic + "+key", false},
		{"DMS", rocketmqtest.Config{DMS: true}, "key", true},
		{"DMS, with topic", rocketmqtest.Config{DMS: true}, wireTopic + "+key", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := run(t, c.config)
			deliver, remove := "TIMER_DELIVER_MS", "TIMER_DEL_UNIQKEY"
			if c.config.DMS {
				deliver, remove = "__STARTDELIVERTIME", "__CANCEL_SCHEDULED_MSG"
			}
			at := w.mq.Clock().Now().Add(time.Minute)
			w.send("m", deliver, millis(at), "UNIQ_KEY", "key")
			w.send("other", deliver, millis(at), "UNIQ_KEY", "other")
			w.send("later", deliver, millis(at.Add(time.Minute)), "UNIQ_KEY", "later")
			w.send("delete", deliver, millis(at), remove, c.key)
			w.send("delete", deliver, millis(at), remove, wireTopic+"+later") // in another slot
			w.mq.FastForward(time.Hour)
			if c.deletes {
				want(t, "delivered", w.delivered(), "other", "later")
			} else {
				want(t, "delivered", w.delivered(), "m", "other", "later")
			}
		})
	}
}

func TestRecall(t *testing.T) {
	t.Parallel()
	for _, version := range []rocketmqtest.Version{rocketmqtest.RocketMQ53, rocketmqtest.RocketMQ55} {
		w := run(t, rocketmqtest.Config{Version: version})
		a := w.send("m", "TIMER_DELAY_SEC", "60", "UNIQ_KEY", "key")
		w.send("other", "TIMER_DELAY_SEC", "60", "UNIQ_KEY", "other")
		if got := w.send("now").Ext["recallHandle"]; got != "" {
			t.Errorf("handle %q of what doesn't wait", got)
		}
		w.mq.CreateTopic("another", 1)
		handle := a.Ext["recallHandle"]
		recall := fields{"producerGroup": wireGroup, "topic": wireTopic, "recallHandle": handle}
		for _, c := range []struct {
			name   string
			fields fields
			code   remoting.Code
			remark string
		}{
			{"unknown topic", recall.with("topic", "nosuch"), remoting.TopicNotExist, "recall failed, the topic[nosuch] not exist"},
			{"other topic", recall.with("topic", "another"), remoting.IllegalOperation, "recall failed, topic not match"},
			{"nonsense", recall.with("recallHandle", "bm9uc2Vuc2U="), remoting.IllegalOperation, "recall handle is invalid"},
			{"no base64", recall.with("recallHandle", "!!"), remoting.IllegalOperation, "recall handle is invalid"},
			{"none", recall.with("recallHandle", ""), remoting.IllegalOperation, "recall handle is invalid"},
			{"right", recall, remoting.Success, "not set any response code"},
		} {
			a := w.call(remoting.RecallMessage, c.fields, "")
			wantResponse(t, c.name, a, c.code, c.remark)
			if c.code == remoting.Success && a.Ext["msgId"] != "key" {
				t.Errorf("%s: %v", c.name, a.Ext)
			}
		}
		w.mq.FastForward(time.Hour)
		want(t, "delivered", w.delivered(), "now", "other")
		wantResponse(t, "late", w.call(remoting.RecallMessage, recall, ""), remoting.IllegalOperation, "recall failed, timestamp invalid")
	}
	for _, c := range []rocketmqtest.Config{{Version: rocketmqtest.RocketMQ49}, {DMS: true}} {
		w := run(t, c)
		if a := w.call(remoting.RecallMessage, fields{"topic": wireTopic, "recallHandle": "x"}, ""); a.Code != remoting.NotSupported {
			t.Errorf("%+v: got %v", c, a.Err())
		}
	}
}

// TestFastForwardKeepsOrder shows that one jump delivers in the order of the instants.
func TestFastForwardKeepsOrder(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.send("1h", "TIMER_DELAY_SEC", "3590")
	w.send("2m", "DELAY", "6")
	w.send("90s", "TIMER_DELAY_SEC", "90")
	w.send("1s", "DELAY", "1")
	w.send("30m", "DELAY", "16")
	w.send("beyond", "DELAY", "18")
	w.mq.FastForward(time.Hour)
	want(t, "delivered", w.delivered(), "1s", "90s", "2m", "30m", "1h")
}
