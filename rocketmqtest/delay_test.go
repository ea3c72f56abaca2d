package rocketmqtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

func TestDelayLevels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		level  string
		delay  time.Duration
		stored string // DELAY in the end
		code   remoting.Code
		remark string
	}{
		{level: "1", delay: time.Second, stored: "1"},
		{level: "5", delay: time.Minute, stored: "5"},
		{level: "18", delay: 2 * time.Hour, stored: "18"},
		{level: "99", delay: 2 * time.Hour, stored: "18"},
		{level: "0", stored: "0"},
		{level: "-1", stored: "-1"},
		{level: "x", code: remoting.SystemError, remark: `java.lang.NumberFormatException: For input string: "x"`},
	} {
		t.Run(c.level, func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{})
			a := w.try("m", "DELAY", c.level, "TAGS", "tag")
			wantResponse(t, "send", a, c.code, c.remark)
			if c.code != 0 {
				return
			}
			if c.delay > 0 {
				w.mq.FastForward(c.delay - 500*time.Millisecond)
				want(t, "before", w.delivered())
				w.mq.FastForward(600 * time.Millisecond)
			}
			got := w.read(wireTopic, 1)
			if len(got) != 1 {
				t.Fatalf("%d delivered, want 1", len(got))
			}
			p := got[0].Properties
			if p["DELAY"] != c.stored || p["TAGS"] != "tag" || (p["REAL_TOPIC"] == wireTopic && p["REAL_QID"] == "1") != (c.delay > 0) || a.Ext["recallHandle"] != "" {
				t.Errorf("properties %v", p)
			}
		})
	}
}

func TestDelayOrder(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{DelayLevels: []time.Duration{time.Minute, time.Second}})
	var all []string
	for i := range 50 {
		all = append(all, fmt.Sprint(i))
		w.send(fmt.Sprint(i), "DELAY", "1")
	}
	w.send("sooner", "DELAY", "2", "TIMER_DELAY_SEC", "1", "TIMER_DELAY_MS", "1", "TIMER_DELIVER_MS", "1")
	w.mq.FastForward(time.Hour)
	want(t, "delivered", w.delivered(), append([]string{"sooner"}, all...)...)
	for name := range w.read(wireTopic, 1)[0].Properties {
		if strings.HasPrefix(name, "TIMER_") {
			t.Errorf("%s was kept", name)
		}
	}
}
