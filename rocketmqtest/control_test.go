package rocketmqtest_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// outcome is what became of a request that may get no response.
type outcome struct {
	response *remoting.Command
	err      error
}

// start sends a message and returns at once. It is given up when the test ends.
func (w *wire) start(ctx context.Context, body string) <-chan outcome {
	ext := fields{
		"producerGroup": wireGroup, "topic": wireTopic, "queueId": "1", "sysFlag": "0", "flag": "0", "bornTimestamp": "1",
		"properties": remoting.EncodeProperties(map[string]string{"UNIQ_KEY": body, "KEYS": body}), "reconsumeTimes": "0", "batch": "false",
	}
	done := make(chan outcome, 1)
	go func() {
		a, err := w.conn.Call(ctx, &remoting.Command{Code: remoting.SendMessage, Ext: ext, Body: []byte(body)})
		done <- outcome{a, err}
	}()
	return done
}

// stored waits until the topic has these bodies, in their order.
func (w *wire) stored(bodies ...string) {
	w.t.Helper()
	until(w.t, w.mq, func() bool {
		got := []string{}
		for _, m := range w.mq.Messages(wireTopic) {
			got = append(got, string(m.Body))
		}
		return strings.Join(got, " ") == strings.Join(bodies, " ")
	})
}

// until waits for a condition on a server's state.
func until(t *testing.T, mq *rocketmqtest.Server, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := mq.Await(ctx, func(rocketmqtest.Status) bool { return cond() }); err != nil {
		t.Fatalf("%v\n%v", err, mq.Dump())
	}
}

func TestEachActionDoesWhatItNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		action rocketmqtest.Action
		stored string // "": not
		code   remoting.Code
		lost   bool // no response
		cut    bool
	}{
		{action: rocketmqtest.Pass, stored: "m"},
		{action: rocketmqtest.Respond(2, "busy"), code: remoting.SystemBusy},
		{action: rocketmqtest.Drop(), lost: true},
		{action: rocketmqtest.DropResponse(), stored: "m", lost: true},
		{action: rocketmqtest.Duplicate(), stored: "m m"},
		{action: rocketmqtest.ResetBefore(), cut: true},
		{action: rocketmqtest.ResetAfter(), stored: "m", cut: true},
		{action: rocketmqtest.Delay(time.Millisecond), stored: "m"},
		{action: rocketmqtest.Reorder(3), stored: "m"},
	} {
		t.Run(c.action.String(), func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{})
			w.mq.Control(rocketmqtest.Once("SEND_MESSAGE", c.action))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			sent := w.start(ctx, "m")
			if c.lost {
				w.call(remoting.MaxOffset, fields{"topic": wireTopic, "queueId": "1"}, "") // comes after it
				cancel()
			}
			got := <-sent
			switch {
			case c.lost:
				if !errors.Is(got.err, context.Canceled) {
					t.Errorf("got %+v, want no response", got)
				}
			case c.cut:
				if !errors.Is(got.err, broker.ErrUnavailable) || got.response != nil {
					t.Errorf("got %+v, want an end of the connection", got)
				}
			case got.response == nil || got.response.Code != c.code:
				t.Errorf("got %+v, want code %d", got, c.code)
			}
			w.stored(strings.Fields(c.stored)...)
		})
	}
}

func TestReorder(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.mq.Control(rocketmqtest.Once("SEND_MESSAGE", rocketmqtest.Reorder(2)))
	first := w.start(t.Context(), "1")
	until(t, w.mq, func() bool { return w.mq.Status().Held == 1 })
	w.send("2")
	w.send("3")
	if got := <-first; got.err != nil {
		t.Fatal(got.err)
	}
	w.stored("2", "3", "1")
}

func TestHeldRequestIsHandledOnRelease(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	release := make(chan struct{})
	var seen []rocketmqtest.Request
	w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Key != "held" {
			return rocketmqtest.Pass
		}
		seen = append(seen, r)
		return rocketmqtest.HoldUntil(release)
	})
	held := w.start(t.Context(), "held")
	w.send("free")
	until(t, w.mq, func() bool { return w.mq.Status().Held == 1 })
	close(release)
	if got := <-held; got.err != nil {
		t.Fatal(got.err)
	}
	w.stored("free", "held")
	if len(seen) != 1 || seen[0].Name != "SEND_MESSAGE" || seen[0].Group != wireGroup || seen[0].Topic != wireTopic || seen[0].Properties["KEYS"] != "held" ||
		string(seen[0].Body) != "held" || seen[0].FromBroker || !seen[0].Remote.IsValid() {
		t.Errorf("seen %+v", seen)
	}
}

func TestHooksDecideInOrder(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	var calls atomic.Int32
	pass := func(rocketmqtest.Request) rocketmqtest.Action { calls.Add(1); return rocketmqtest.Pass }
	busy := func(rocketmqtest.Request) rocketmqtest.Action { return rocketmqtest.Respond(2, "first") }
	removePass, removeBusy := w.mq.Control(pass), w.mq.Control(busy)
	w.mq.Control(func(rocketmqtest.Request) rocketmqtest.Action { return rocketmqtest.Respond(2, "second") })
	wantResponse(t, "both", w.try("m"), remoting.SystemBusy, "first")
	removePass()
	removePass()
	removeBusy()
	wantResponse(t, "one", w.try("m"), remoting.SystemBusy, "second")
	if n := calls.Load(); n != 1 {
		t.Errorf("the first hook was called %d times", n)
	}
}

func TestControlActsOnChecks(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.produce("client")
	actions := []rocketmqtest.Action{rocketmqtest.Drop(), rocketmqtest.Duplicate(), rocketmqtest.Delay(time.Millisecond), rocketmqtest.Pass}
	var mu sync.Mutex
	var seen []rocketmqtest.Request
	w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name != "CHECK_TRANSACTION_STATE" {
			return rocketmqtest.Pass
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r)
		return actions[len(seen)-1]
	})
	w.half("m")
	for _, n := range []int{0, 2, 1, 1} {
		w.mq.FastForward(30 * time.Second)
		until(t, w.mq, func() bool { return w.mq.Status().Held == 0 })
		got := len(w.checked())
		for ; got < n; got++ { // the one that was delayed comes a little later
			<-w.checks
		}
		if got != n {
			t.Errorf("%d checks, want %d", got, n)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if r := seen[0]; !r.FromBroker || r.Client != "client" || r.Key != "m" || r.Topic != wireTopic || r.Group != wireGroup || r.Properties["UNIQ_KEY"] != "m" {
		t.Errorf("seen %+v", r)
	}
}

// TestFaultsAreReproducibleBySeed sends the same requests through two Faults of one seed in different orders.
func TestFaultsAreReproducibleBySeed(t *testing.T) {
	t.Parallel()
	plan := func(seed uint64) *rocketmqtest.Faults {
		return &rocketmqtest.Faults{Seed: seed, Drop: 0.1, DropResponse: 0.1, Duplicate: 0.1, Delay: 0.1, Reorder: 0.1, ResetBefore: 0.1, ResetAfter: 0.1}
	}
	// Unique keys are others in each run.
	call := func(f *rocketmqtest.Faults, order, run int) {
		key := fmt.Sprintf("%d-%d", run, order)
		f.Hook(rocketmqtest.Request{Name: "SEND_MESSAGE", Group: "g", Topic: "t", Key: key, Properties: map[string]string{"SHARDING_KEY": fmt.Sprint("order-", order)}})
		f.Hook(rocketmqtest.Request{Name: "END_TRANSACTION", Group: "g", Key: key})
		f.Hook(rocketmqtest.Request{Name: "PULL_MESSAGE", Group: "g"})
	}
	a, b, other := plan(1), plan(1), plan(2)
	for i := range 100 {
		call(a, i, 1)
		call(b, 99-i, 2)
		call(other, i, 1)
	}
	if !reflect.DeepEqual(a.Injected(), b.Injected()) {
		t.Errorf("one seed:\n%v\n%v", a, b)
	}
	if reflect.DeepEqual(a.Injected(), other.Injected()) {
		t.Error("two seeds did the same")
	}
	if n := len(a.Injected()); n < 100 || n > 180 {
		t.Errorf("%d faults in 200 requests, want about 140", n)
	}
	if !strings.Contains(a.String(), "END_TRANSACTION g t/order-") {
		t.Errorf("got %v", a)
	}
}

func TestCloseWhileRequestsWait(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	actions := make(chan rocketmqtest.Action, 3)
	actions <- rocketmqtest.Delay(time.Hour)
	actions <- rocketmqtest.HoldUntil(make(chan struct{}))
	actions <- rocketmqtest.Reorder(100)
	w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name == "SEND_MESSAGE" {
			return <-actions
		}
		return rocketmqtest.Pass
	})
	var all []<-chan outcome
	for range 3 {
		all = append(all, w.start(t.Context(), "m"))
	}
	all = append(all, w.poll(t.Context()))
	until(t, w.mq, func() bool { return w.mq.Status().Held == 3 })
	w.mq.Close()
	for _, c := range all {
		if got := <-c; !errors.Is(got.err, broker.ErrUnavailable) {
			t.Errorf("got %+v", got)
		}
	}
}

// poll pulls a message and waits for it.
func (w *wire) poll(ctx context.Context) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		a, err := w.conn.Call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: fields{
			"consumerGroup": "consumers", "topic": wireTopic, "queueId": "1", "queueOffset": "0", "maxMsgNums": "32",
			"sysFlag": "6", "commitOffset": "0", "suspendTimeoutMillis": "20000", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}})
		done <- outcome{a, err}
	}()
	return done
}
