package rocketmqtest_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestOpenHalfMessageIsChecked sends check-backs for a half message that is neither committed nor rolled back.
func TestOpenHalfMessageIsChecked(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.produce("one")
	a := w.half("half", "mine", "1")
	w.mq.FastForward(29 * time.Second)
	if n := len(w.checked()); n != 0 {
		t.Errorf("%d checks before the first round", n)
	}
	w.mq.FastForward(2 * time.Second)
	checks := w.checked()
	if len(checks) != 1 {
		t.Fatalf("%d checks in the first round, want 1", len(checks))
	}
	c := checks[0]
	if c.ext["topic"] != halfTopic || c.ext["msgId"] != "half" || c.ext["transactionId"] != "half" || c.ext["bname"] != "broker-a" ||
		c.ext["tranStateTableOffset"] != "1" || c.ext["offsetMsgId"] == a.Ext["msgId"] {
		t.Errorf("fields %v", c.ext)
	}
	stored := w.read(halfTopic, 0)
	if len(stored) != 2 || strconv.FormatInt(stored[1].CommitLog, 10) != c.ext["commitLogOffset"] || stored[1].Properties["TRANSACTION_CHECK_TIMES"] != "1" || !stored[1].Born.Equal(stored[0].Born) {
		t.Errorf("half messages %+v", stored)
	}
	h := c.half
	p := h.Properties
	if h.Topic != wireTopic || h.Queue != 1 || h.QueueOffset != 1 || h.CommitLog != stored[1].CommitLog || !h.Stored.Equal(stored[0].Stored) || string(h.Body) != "half" ||
		p["PGROUP"] != wireGroup || p["UNIQ_KEY"] != "half" || p["TRANSACTION_CHECK_TIMES"] != "1" || p["mine"] != "1" || p["WAIT"] != "false" {
		t.Errorf("check with %+v", h)
	}
	// Unknown, then a commit; and the late commit of the first copy, which delivers as well.
	w.mq.FastForward(time.Minute)
	checks = w.checked()
	if len(checks) != 1 || checks[0].half.Properties["TRANSACTION_CHECK_TIMES"] != "2" {
		t.Fatalf("checks in the second round: %+v", checks)
	}
	w.endChecked(checks[0], commit)
	w.end(a, commit)
	w.mq.FastForward(time.Hour)
	if n := len(w.checked()); n != 0 {
		t.Errorf("%d checks after the commit", n)
	}
	want(t, "delivered", w.delivered(), "half", "half")
}

// TestCheckIntervalOf49 shows the default interval of RocketMQ 4.9.
func TestCheckIntervalOf49(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ49})
	w.produce("one")
	w.half("half")
	w.mq.FastForward(58 * time.Second)
	if n := len(w.checked()); n != 0 {
		t.Errorf("%d checks before a minute", n)
	}
	w.mq.FastForward(3 * time.Second)
	if n := len(w.checked()); n != 1 {
		t.Errorf("%d checks after a minute, want 1", n)
	}
}

// TestChecksRotateAmongProducers sends the check-backs of a group to each of its producers in turn.
func TestChecksRotateAmongProducers(t *testing.T) {
	t.Parallel()
	one := run(t, rocketmqtest.Config{})
	two := connect(t, one.mq)
	one.produce("one")
	two.produce("two")
	for i := range 6 {
		one.half(fmt.Sprint(i))
	}
	one.mq.FastForward(time.Minute)
	if a, b := len(one.checked()), len(two.checked()); a != 3 || b != 3 {
		t.Errorf("%d and %d checks, want 3 each", a, b)
	}
	two.call(remoting.UnregisterClient, fields{"clientID": "two", "producerGroup": wireGroup}, "")
	one.mq.FastForward(time.Minute)
	if a := len(one.checked()); a != 6 {
		t.Errorf("%d checks, want all 6", a)
	}
}

// TestUncheckedHalfMessageIsDiscarded discards a half message after CheckMax rounds, whether or not a producer got the
// check-backs.
func TestUncheckedHalfMessageIsDiscarded(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{CheckMax: 3})
	w.half("half", "TAGS", "tag", "SHARDING_KEY", "key", "mine", "1")
	for round := range 2 {
		w.mq.FastForward(time.Minute)
		if code := w.pull(discardTopic, 0, 0).Code; code != remoting.TopicNotExist {
			t.Fatalf("after round %d: code %d", round, code)
		}
	}
	w.mq.FastForward(time.Minute) // the third is sent, and the last: the round goes on to the copy, whose count is full
	got := w.read(discardTopic, 0)
	if len(got) != 1 {
		t.Fatalf("%d messages thrown away, want 1", len(got))
	}
	p := got[0].Properties
	for name, value := range map[string]string{
		"REAL_TOPIC": wireTopic, "REAL_QID": "1", "PGROUP": wireGroup, "UNIQ_KEY": "half", "__transactionId__": "half", "TRAN_MSG": "true",
		"TAGS": "tag", "SHARDING_KEY": "key", "mine": "1", "TRANSACTION_CHECK_TIMES": "3",
	} {
		if p[name] != value {
			t.Errorf("%s is %q, want %q", name, p[name], value)
		}
	}
	w.mq.FastForward(time.Hour)
	if n := len(w.read(discardTopic, 0)); n != 1 {
		t.Errorf("%d messages thrown away in the end, want 1", n)
	}
	// It can be read, but neither made nor written to.
	a := w.call(remoting.UpdateTopic, fields{
		"topic": discardTopic, "readQueueNums": "1", "writeQueueNums": "1", "perm": "6", "defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}, "")
	wantResponse(t, "create", a, remoting.InvalidParameter, "The topic["+discardTopic+"] is conflict with system topic.")
	a = w.tryTo(discardTopic, time.Now(), "m")
	if a.Code != remoting.NoPermission {
		t.Errorf("send: %v", a.Err())
	}
	// An operator makes the broker check it once more.
	w.produce("one")
	id := remoting.OffsetID(got[0].StoreHost, got[0].CommitLog)
	wantResponse(t, "resume", w.call(remoting.ResumeCheck, fields{"msgId": id, "topic": halfTopic}, ""), remoting.Success, "")
	w.mq.FastForward(time.Minute)
	if c := w.checked(); len(c) != 1 || c[0].half.Properties["TRANSACTION_CHECK_TIMES"] != "1" {
		t.Fatalf("checks after resuming: %+v", c)
	} else {
		w.endChecked(c[0], commit)
	}
	want(t, "delivered", w.delivered(), "half")
	a = w.call(remoting.ResumeCheck, fields{"msgId": "nonsense", "topic": halfTopic}, "")
	wantResponse(t, "resume nothing", a, remoting.SystemError, "Exception was thrown when putting message back to RMQ_SYS_TRANS_HALF_TOPIC.")
}

// TestCheckAgeFollowsTheProducersClock computes the age of a half message from the born timestamp of its producer, whose
// clock FastForward does not move.
func TestCheckAgeFollowsTheProducersClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		age            time.Duration // when it is stored
		checks, thrown int           // in a round a second later
	}{
		{"young", 0, 0, 0},
		{"of age", 6 * time.Second, 1, 0},
		{"from the future", -time.Hour, 1, 0},
		{"too old", 73 * time.Hour, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{})
			w.produce("one")
			w.mq.FastForward(29 * time.Second)
			w.tryTo(wireTopic, time.Now().Add(-c.age), "half", "TRAN_MSG", "true", "PGROUP", wireGroup)
			w.mq.FastForward(time.Second)
			if checks, thrown := len(w.checked()), len(w.read(discardTopic, 0)); checks != c.checks || thrown != c.thrown {
				t.Errorf("%d checks, %d thrown away, want %d and %d", checks, thrown, c.checks, c.thrown)
			}
		})
	}
}

// TestCheckRoundStopsAtYoungHalfMessage shows that one that is fresh hides those behind it.
func TestCheckRoundStopsAtYoungHalfMessage(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.produce("one")
	w.mq.FastForward(29 * time.Second)
	w.half("fresh")
	w.tryTo(wireTopic, time.Now().Add(-time.Hour), "old", "TRAN_MSG", "true", "PGROUP", wireGroup)
	w.mq.FastForward(time.Second)
	if n := len(w.checked()); n != 0 {
		t.Errorf("%d checks, want 0", n)
	}
	w.mq.FastForward(30 * time.Second)
	if n := len(w.checked()); n != 2 {
		t.Errorf("%d checks, want 2", n)
	}
}

// TestUnwrittenMarkerDoesNotPreventCheck checks a committed half message whose marker is not written yet.
func TestUnwrittenMarkerDoesNotPreventCheck(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.produce("one")
	a := w.half("half")
	w.mq.FastForward(29 * time.Second)
	w.end(a, commit)
	w.mq.FastForward(time.Second)
	checks := w.checked()
	if len(checks) != 1 {
		t.Fatalf("%d checks, want 1", len(checks))
	}
	w.endChecked(checks[0], commit)
	want(t, "delivered", w.delivered(), "half", "half")

	// A jump of the clock past the round and the writing of the mark is not such a case.
	w = run(t, rocketmqtest.Config{})
	w.produce("one")
	a = w.half("half")
	w.mq.FastForward(29 * time.Second)
	w.end(a, commit)
	w.mq.FastForward(time.Minute)
	if n := len(w.checked()); n != 0 {
		t.Errorf("%d checks after a jump, want 0", n)
	}
}

func TestCheckImmunityTime(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.produce("one")
	a := w.half("half", "CHECK_IMMUNITY_TIME_IN_SECONDS", "70")
	for round := 1; round <= 2; round++ {
		w.mq.FastForward(30 * time.Second)
		stored := w.read(halfTopic, 0)
		if len(stored) != 1+round {
			t.Fatalf("round %d: %d half messages", round, len(stored))
		}
		p := stored[round].Properties
		if p["TRANSACTION_CHECK_TIMES"] != strconv.Itoa(round) || p["TRAN_PREPARED_QUEUE_OFFSET"] != "0" || len(w.checked()) != 0 {
			t.Errorf("round %d: %v", round, p)
		}
	}
	// Its end, in time, is of the original; the copy is checked all the same.
	wantResponse(t, "commit", w.end(a, commit), remoting.Success, "")
	w.mq.FastForward(30 * time.Second)
	if n := len(w.checked()); n != 1 {
		t.Errorf("%d checks after the immunity, want 1", n)
	}

	// One that is immune for longer than the checks last is never checked.
	w = run(t, rocketmqtest.Config{CheckMax: 2})
	w.produce("one")
	w.half("half", "CHECK_IMMUNITY_TIME_IN_SECONDS", "3600")
	for range 3 {
		w.mq.FastForward(30 * time.Second)
	}
	if checks, thrown := len(w.checked()), len(w.read(discardTopic, 0)); checks != 0 || thrown != 1 {
		t.Errorf("%d checks, %d thrown away, want 0 and 1", checks, thrown)
	}
}
