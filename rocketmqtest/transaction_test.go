package rocketmqtest_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

const (
	halfTopic    = "RMQ_SYS_TRANS_HALF_TOPIC"
	opTopic      = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
	discardTopic = "TRANS_CHECK_MAX_TIME_TOPIC"

	commit   = remoting.TransactionCommit
	rollback = remoting.TransactionRollback
)

func TestCommittedMessageIsDelivered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version rocketmqtest.Version
		keeps   bool // where the message was set aside for
	}{
		{rocketmqtest.RocketMQ49, true}, {rocketmqtest.RocketMQ53, true}, {rocketmqtest.RocketMQ55, false},
	} {
		t.Run(fmt.Sprint(c.version), func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{Version: c.version})
			w.half("other")
			a := w.half("half", "TAGS", "tag", "mine", "1")
			transaction := "half"
			if c.version == rocketmqtest.RocketMQ49 {
				transaction = "" // it leaves naming transactions to the client
			}
			if a.Ext["queueOffset"] != "1" || a.Ext["queueId"] != "1" || a.Ext["transactionId"] != transaction {
				t.Errorf("sent: %v", a.Ext)
			}
			if ordinal := map[rocketmqtest.Version]int{rocketmqtest.RocketMQ49: 407, rocketmqtest.RocketMQ53: 479, rocketmqtest.RocketMQ55: 513}[c.version]; a.Version != ordinal {
				t.Errorf("the response says version %d, want %d", a.Version, ordinal)
			}
			want(t, "before the commit", w.delivered())
			half := w.read(halfTopic, 0)[1]
			p := half.Properties
			if p["REAL_TOPIC"] != wireTopic || p["REAL_QID"] != "1" || p["PGROUP"] != wireGroup || p["__transactionId__"] != transaction || half.Queue != 0 || half.SysFlag != 0 {
				t.Errorf("half message %+v", half)
			}
			wantResponse(t, "commit", w.end(a, commit), remoting.Success, "")
			got := w.read(wireTopic, 1)
			if len(got) != 1 {
				t.Fatalf("%d messages delivered, want 1", len(got))
			}
			r := got[0]
			p = r.Properties
			_, kept := p["REAL_TOPIC"]
			_, keptQueue := p["REAL_QID"]
			if kept != c.keeps || keptQueue != c.keeps || p["TRAN_MSG"] != "true" || p["PGROUP"] != wireGroup || p["__transactionId__"] != transaction || p["TAGS"] != "tag" || p["mine"] != "1" {
				t.Errorf("properties %v", p)
			}
			if r.SysFlag != commit || r.PreparedOffset != half.CommitLog || !r.Born.Equal(half.Born) {
				t.Errorf("delivered %+v for half message %+v", r, half)
			}
		})
	}
}

func TestEndTransactionResponses(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	half := endOf(t, w.half("half"), commit)
	plain := endOf(t, w.send("plain", "PGROUP", wireGroup), commit)
	const noRemark = "not set any response code"
	for _, c := range []struct {
		name   string
		fields fields
		code   remoting.Code
		remark string
	}{
		{"other group", half.with("producerGroup", "other"), remoting.SystemError, "The producer group wrong"},
		{"wrong queue offset", half.with("tranStateTableOffset", "7"), remoting.SystemError, "The transaction state table offset wrong"},
		{"nothing there", half.with("commitLogOffset", "7"), remoting.SystemError, "Find prepared transaction message failed"},
		{"neither commit nor rollback", half.with("commitOrRollback", "4"), remoting.SystemError, "commitOrRollback field wrong"},
		{"no offset", half.with("commitLogOffset", ""), remoting.SystemError, `the custom field <commitLogOffset> is null or no number: ""`},
		{"no half message", plain, remoting.SystemError, "java.lang.NumberFormatException: Cannot parse null string"},
		{"rollback", half.with("commitOrRollback", "12"), remoting.Success, noRemark},
		{"commit", half, remoting.Success, ""},
	} {
		wantResponse(t, c.name, w.call(remoting.EndTransaction, c.fields, ""), c.code, c.remark)
	}
	// Unknown has no response at all.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if a, _ := w.conn.Call(ctx, &remoting.Command{Code: remoting.EndTransaction, Ext: half.with("commitOrRollback", "0")}); a != nil {
		t.Errorf("unknown: got %d %q", a.Code, a.Remark)
	}
	want(t, "delivered", w.delivered(), "plain", "half")
	w.mq.FastForward(time.Minute)
	want(t, "marks", bodies(w.read(opTopic, 0)), "0,0,")
}

// TestEndTransactionTwice shows that the broker doesn't check whether a half message has ended already.
func TestEndTransactionTwice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		ends      []int
		delivered int
	}{
		{"rollback", []int{rollback}, 0},
		{"commit twice", []int{commit, commit}, 2},
		{"rollback, then commit", []int{rollback, commit}, 1},
		{"commit, then rollback", []int{commit, rollback}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{})
			w.produce("one")
			a := w.half("half")
			for _, kind := range c.ends {
				if got := w.end(a, kind); got.Code != remoting.Success {
					t.Errorf("end: %v", got.Err())
				}
			}
			w.mq.FastForward(time.Hour)
			if got := w.delivered(); len(got) != c.delivered {
				t.Errorf("delivered %q, want %d", got, c.delivered)
			}
			if got := w.checked(); len(got) != 0 {
				t.Errorf("checked %d times after its end", len(got))
			}
		})
	}
}

func TestCommitToDeletedTopicIsRefused(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	a := w.half("half")
	if a := w.call(remoting.DeleteTopicInBroker, fields{"topic": wireTopic}, ""); a.Code != remoting.Success {
		t.Fatal(a.Err())
	}
	wantResponse(t, "commit", w.end(a, commit), remoting.SystemError, "topic topic has no queue 1 any more")
}

func TestWhichMessagesAreHalfMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value string
		half  bool
	}{
		{"true", true}, {"TRUE", true}, {"false", false}, {"1", false},
	} {
		w := run(t, rocketmqtest.Config{})
		w.send("m", "TRAN_MSG", c.value)
		if half := len(w.delivered()) == 0; half != c.half {
			t.Errorf("TRAN_MSG=%s: half %v, want %v", c.value, half, c.half)
		}
	}
	// A retry bears the properties of its first delivery, and is none.
	w := run(t, rocketmqtest.Config{})
	retry := sendRequest(wireTopic, time.Now(), "TRAN_MSG", "true", "DELAY", "3").with("reconsumeTimes", "1")
	if a := w.call(remoting.SendMessage, retry, "retry"); a.Code != remoting.Success {
		t.Fatal(a.Err())
	}
	w.mq.FastForward(time.Minute)
	want(t, "delivered", w.delivered(), "retry")
}

func TestEndAfterTheImmunityIsRefused(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	in, late := w.half("in time", "CHECK_IMMUNITY_TIME_IN_SECONDS", "20"), w.half("late", "CHECK_IMMUNITY_TIME_IN_SECONDS", "5")
	w.mq.FastForward(10 * time.Second)
	wantResponse(t, "in time", w.end(in, commit), remoting.Success, "")
	for _, kind := range []int{commit, rollback} {
		wantResponse(t, "late", w.end(late, kind), remoting.IllegalOperation, "not set any response code")
	}
	response := endOf(t, late, commit).with("fromTransactionCheck", "true")
	wantResponse(t, "late, but checked", w.call(remoting.EndTransaction, response, ""), remoting.Success, "")
	want(t, "delivered", w.delivered(), "in time", "late")
}

func TestMarkersAreWrittenInBatches(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{OpBatchInterval: time.Hour})
	one, two := w.half("one"), w.half("two")
	w.end(one, commit)
	w.end(two, rollback)
	want(t, "at first", bodies(w.read(opTopic, 0)))
	w.mq.FastForward(time.Hour)
	want(t, "after the interval", bodies(w.read(opTopic, 0)), "0,1,")
	w.end(two, rollback)
	w.mq.FastForward(time.Hour)
	marks := w.read(opTopic, 0)
	want(t, "after the next", bodies(marks), "0,1,", "1,")
	if tag := marks[0].Properties["TAGS"]; tag != "d" {
		t.Errorf("tag %q", tag)
	}
	for range 4096/2 + 1 {
		w.end(one, rollback)
	}
	if marks := w.read(opTopic, 0); len(marks) != 3 || string(marks[2].Body) != strings.Repeat("0,", 4096/2+1) {
		t.Errorf("with more than 4096 bytes: %q", bodies(marks))
	}

	old := run(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ49})
	old.end(old.half("one"), commit)
	want(t, "4.9", bodies(old.read(opTopic, 0)), "0")
}

// TestDelayedHalfMessageLosesItsTopic delays a half message: the topic that it was for is lost, as with a real broker.
func TestDelayedHalfMessageLosesItsTopic(t *testing.T) {
	t.Parallel()
	t.Run("level", func(t *testing.T) {
		t.Parallel()
		w := run(t, rocketmqtest.Config{})
		a := w.half("half", "DELAY", "2")
		wantResponse(t, "commit", w.end(a, commit), remoting.Success, "")
		if got := w.read("SCHEDULE_TOPIC_XXXX", 1); len(got) != 2 || got[0].Properties["REAL_TOPIC"] != halfTopic || got[1].Properties["REAL_TOPIC"] != halfTopic {
			t.Errorf("delayed: %+v", got)
		}
		if got := w.read("SCHEDULE_TOPIC_XXXX", 1); got[0].Properties["TRAN_MSG"] != "true" || got[1].Properties["TRAN_MSG"] != "" {
			t.Errorf("delayed, then committed: %v, %v", got[0].Properties, got[1].Properties)
		}
		w.mq.FastForward(time.Hour)
		want(t, "delivered", w.delivered())
		want(t, "half messages", bodies(w.read(halfTopic, 0)))
		want(t, "marks", bodies(w.read(opTopic, 0))) // it would be for another queue than that of half messages
	})
	t.Run("timer", func(t *testing.T) {
		t.Parallel()
		w := run(t, rocketmqtest.Config{CheckMax: 2})
		w.produce("one")
		a := w.half("half", "TIMER_DELAY_SEC", "10")
		wantResponse(t, "rollback", w.end(a, rollback), remoting.Success, "not set any response code")
		w.mq.FastForward(11 * time.Second)
		want(t, "half messages", bodies(w.read(halfTopic, 0)), "half")
		// The mark was for an offset of another topic, but is taken for this one's. The next has no such luck.
		w.half("half", "TIMER_DELAY_SEC", "10")
		w.mq.FastForward(11 * time.Second)
		w.mq.FastForward(time.Minute)
		checks := w.checked()
		if len(checks) != 1 || checks[0].half.Topic != halfTopic {
			t.Fatalf("checks: %+v", checks)
		}
		wantResponse(t, "commit", w.endChecked(checks[0], commit), remoting.Success, "")
		want(t, "half messages", bodies(w.read(halfTopic, 0)), "half", "half", "half", "half")
		for range 5 {
			w.mq.FastForward(time.Minute)
		}
		want(t, "delivered", w.delivered())
		want(t, "thrown away", bodies(w.read(discardTopic, 0)), "half")
	})
	t.Run("timer in the past", func(t *testing.T) {
		t.Parallel()
		w := run(t, rocketmqtest.Config{})
		a := w.half("half", "TIMER_DELIVER_MS", strconv.Itoa(1))
		w.end(a, commit)
		want(t, "delivered", w.delivered(), "half")
	})
}
