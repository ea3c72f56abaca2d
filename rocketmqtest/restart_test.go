package rocketmqtest_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// restart restarts the broker and connects anew.
func (w *wire) restart(loss rocketmqtest.Loss) {
	w.t.Helper()
	if err := w.mq.Restart(loss); err != nil {
		w.t.Fatal(err)
	}
	<-w.conn.Done()
	again := connect(w.t, w.mq)
	w.conn, w.checks = again.conn, again.checks
}

// Another program that is just being started may hold the address for a moment.
func TestStartAwaitsItsAddress(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.mq.Stop(rocketmqtest.LoseNothing)
	holder, err := net.Listen("tcp4", w.mq.BrokerAddr())
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- w.mq.Start() }()
	select {
	case err := <-started:
		t.Errorf("started on a taken address: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	holder.Close()
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// TestStopAndStart stops and starts the broker and the name server: the name server keeps the routes of a killed broker only,
// and nothing starts after Close.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	poll := w.poll(t.Context())
	w.mq.Stop(rocketmqtest.LoseMemory)
	w.mq.Stop(rocketmqtest.LoseMemory)
	if got := <-poll; !errors.Is(got.err, broker.ErrUnavailable) {
		t.Errorf("poll: got %+v", got)
	}
	if conn, err := remoting.Dial(t.Context(), w.mq.BrokerAddr(), remoting.Credentials{}, nil); err == nil {
		conn.Close()
		t.Error("a broker that is stopped was connected to")
	}
	names, err := remoting.Dial(t.Context(), w.mq.Addr(), remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	route := func() error {
		_, err := names.Call(t.Context(), &remoting.Command{Code: remoting.RouteOfTopic, Ext: fields{"topic": wireTopic}})
		return err
	}
	if err := route(); err != nil {
		t.Errorf("route of a killed broker: %v", err)
	}
	for range 2 {
		if err := w.mq.Start(); err != nil {
			t.Fatal(err)
		}
	}
	w = connect(t, w.mq)
	w.send("m")
	w.mq.Stop(rocketmqtest.LoseNothing)
	if err := route(); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("route of a broker that was shut down: %v", err)
	}
	w.mq.StopNameServer()
	<-names.Done()
	if err := w.mq.StartNameServer(); err != nil {
		t.Error(err)
	}
	w.mq.Close()
	if w.mq.Start() == nil || w.mq.StartNameServer() == nil {
		t.Error("started after Close")
	}
}

func TestEachLossLosesWhatItNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		loss      rocketmqtest.Loss
		checks    int // of an ended transaction, and one that isn't
		offset    string
		delivered []string // after all is due again
	}{
		{"nothing", rocketmqtest.LoseNothing, 1, "2", []string{"early", "ended", "delayed", "timer", "late"}},
		{"markers", rocketmqtest.LoseMarkers, 2, "2", []string{"early", "ended", "delayed", "timer", "late"}},
		{"memory", rocketmqtest.LoseMemory, 2, "1", []string{"early", "ended", "delayed", "timer", "late", "delayed", "timer"}},
		{"unflushed", rocketmqtest.LoseUnflushed, 2, "1", []string{"early", "ended", "delayed", "timer"}}, // their first delivery, too, was lost
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// The intervals are such that the machine's time doesn't matter.
			w := run(t, rocketmqtest.Config{
				OpBatchInterval: time.Hour, CheckInterval: 24 * time.Hour, OffsetFlushInterval: time.Minute, FlushInterval: 10 * time.Second,
			})
			w.send("early")
			w.call(remoting.Heartbeat, fields{}, `{"clientID":"c","consumerDataSet":[{"groupName":"consumers","subscriptionDataSet":[{"topic":"topic","subString":"*"}]}]}`)
			offset := fields{"consumerGroup": "consumers", "topic": wireTopic, "queueId": "1", "commitOffset": "1"}
			w.call(remoting.UpdateConsumerOffset, offset, "")
			w.end(w.half("ended"), remoting.TransactionCommit)
			w.half("open")
			w.mq.FastForward(3 * time.Minute) // flushed
			w.send("delayed", "DELAY", "1")
			w.send("timer", "TIMER_DELAY_MS", "1500")
			w.mq.FastForward(20 * time.Second) // delivered, not flushed
			offset["commitOffset"] = "2"
			w.call(remoting.UpdateConsumerOffset, offset, "")
			w.send("late")

			w.restart(c.loss)
			if a := w.call(remoting.QueryConsumerOffset, offset, ""); a.Ext["offset"] != c.offset {
				t.Errorf("offset %s, want %s", a.Ext["offset"], c.offset)
			}
			if n := w.mq.Status().Groups["consumers"].Members; n != 0 {
				t.Errorf("%d members", n)
			}
			w.produce("producer")
			w.mq.FastForward(24 * time.Hour)
			if n := len(w.checked()); n != c.checks {
				t.Errorf("%d checks, want %d", n, c.checks)
			}
			want(t, "delivered", w.delivered(), c.delivered...)
			if t.Failed() {
				t.Log(w.mq.Dump())
			}
		})
	}
}

// TestPausedBrokerRespondsAfterResume sends a request to a paused broker: the response comes after Resume.
func TestPausedBrokerRespondsAfterResume(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.send("timer", "TIMER_DELAY_MS", "60000")
	w.mq.Pause()
	held := w.start(t.Context(), "m")
	w.mq.FastForward(time.Hour)
	if n := len(w.mq.Messages(wireTopic)); n != 0 {
		t.Errorf("%d messages during the pause", n)
	}
	w.mq.Resume()
	if got := <-held; got.err != nil {
		t.Error(got.err)
	}
	w.stored("timer", "m")
}

func TestPartitionSeparatesClients(t *testing.T) {
	t.Parallel()
	heartbeat := func(client string) *remoting.Command {
		return &remoting.Command{Code: remoting.Heartbeat, Body: []byte(`{"clientID":"` + client + `","consumerDataSet":[{"groupName":"consumers"}]}`)}
	}
	members := func(mq *rocketmqtest.Server) int { return mq.Status().Groups["consumers"].Members }
	only := func(client string) bool { return client == "cut" }
	for name, outage := range map[string]rocketmqtest.Outage{"silent": rocketmqtest.Silent, "dead": rocketmqtest.Dead, "refused": rocketmqtest.Refused} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := run(t, rocketmqtest.Config{})
			free := connect(t, w.mq)
			for _, c := range []struct {
				w  *wire
				id string
			}{{w, "cut"}, {free, "free"}} {
				if _, err := c.w.conn.Call(t.Context(), heartbeat(c.id)); err != nil {
					t.Fatal(err)
				}
			}
			heal := w.mq.Partition(only, outage)
			sent := w.start(t.Context(), "m")
			free.send("free")
			late := connect(t, w.mq) // the cut client connects anew
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			again := make(chan error, 1)
			go func() {
				_, err := late.conn.Call(ctx, heartbeat("cut"))
				again <- err
			}()
			switch outage {
			case rocketmqtest.Refused:
				<-w.conn.Done()
				<-late.conn.Done()
				until(t, w.mq, func() bool { return members(w.mq) == 1 })
			default:
				until(t, w.mq, func() bool { return w.mq.Dump().Broker.Silent == 2 })
				if n := members(w.mq); n != 2 {
					t.Errorf("%d members: the broker doesn't know of the outage", n)
				}
			}
			w.stored("free")
			heal()
			got, err := <-sent, <-again
			if lost := outage != rocketmqtest.Silent; (got.err != nil) != lost || (err != nil) != lost {
				t.Errorf("got %v and %v", got.err, err)
			}
			if outage == rocketmqtest.Silent {
				w.stored("free", "m")
			}
			last := connect(t, w.mq)
			last.send("last")
		})
	}
	t.Run("everyone", func(t *testing.T) {
		t.Parallel()
		w := run(t, rocketmqtest.Config{})
		heal := w.mq.Partition(nil, rocketmqtest.Silent)
		sent := w.start(t.Context(), "m")
		if n := len(w.mq.Messages(wireTopic)); n != 0 {
			t.Errorf("%d messages", n)
		}
		heal()
		<-sent
		w.stored("m")
	})
}

// TestRestartFromHook kills the broker just before it would handle the end of a transaction, and just after.
func TestRestartFromHook(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	restarted := make(chan struct{})
	remove := w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name == "END_TRANSACTION" {
			defer close(restarted)
			if err := w.mq.Restart(rocketmqtest.LoseMemory); err != nil {
				t.Error(err)
			}
		}
		return rocketmqtest.Pass
	})
	half := w.half("m")
	if _, err := w.conn.Call(t.Context(), &remoting.Command{Code: remoting.EndTransaction, Ext: endOf(t, half, remoting.TransactionCommit)}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	<-restarted
	remove()
	w = connect(t, w.mq)
	want(t, "before its end", w.delivered())
	w.produce("client")
	w.mq.FastForward(30 * time.Second)
	checks := w.checked()
	if len(checks) != 1 {
		t.Fatalf("%d checks", len(checks))
	}
	w.endChecked(checks[0], remoting.TransactionCommit)
	want(t, "after the check", w.delivered(), "m")
}
