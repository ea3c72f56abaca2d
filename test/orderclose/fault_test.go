//go:build !race

package orderclose_test

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// A fault hits a single request to the broker, or all of one kind: the order is closed by its deadline all the same.
func TestFaultsOfRequests(t *testing.T) {
	t.Parallel()
	drop, mute, twice := rocketmqtest.Drop(), rocketmqtest.DropResponse(), rocketmqtest.Duplicate()
	before, after := rocketmqtest.ResetBefore(), rocketmqtest.ResetAfter()
	s := openShop(t, rocketflowtest.Config{})
	for _, f := range []struct {
		name string
		hook func() hook
		// Deliveries of order.placed, at least: that the fault struck. Time that is moved on while a slow machine is at work
		// may have the sweep send it once more.
		want int
	}{
		{"none", func() hook { return once(isHalf, rocketmqtest.Pass) }, 1},
		{"half message lost", func() hook { return once(isHalf, drop) }, 1},
		{"response to half message lost", func() hook { return once(isHalf, mute) }, 1},
		{"half message doubled", func() hook { return once(isHalf, twice) }, 1},
		{"connection cut before half message", func() hook { return once(isHalf, before) }, 1},
		{"connection cut after half message", func() hook { return once(isHalf, after) }, 1},
		{"commit lost", func() hook { return once(isEnd, drop) }, 1},
		{"response to commit lost", func() hook { return once(isEnd, mute) }, 2},
		{"commit doubled", func() hook { return once(isEnd, twice) }, 2},
		{"connection cut before commit", func() hook { return once(isEnd, before) }, 1},
		{"connection cut after commit", func() hook { return once(isEnd, after) }, 2},
		{"timer lost", func() hook { return once(isTimer, drop) }, 1},
		{"response to timer lost", func() hook { return once(isTimer, mute) }, 1},
		{"timer doubled", func() hook { return once(isTimer, twice) }, 1},
		{"all timers lost", func() hook { return always(isTimer, drop) }, 1},
		{"all checks lost", func() hook { return always(isCheck, drop) }, 1},
		{"all half messages lost", func() hook { return always(isHalf, drop) }, 1},
		{"all commits lost", func() hook { return always(isEnd, drop) }, 1},
		{"all commits and the relay's first send lost", func() hook { return both(always(isEnd, drop), once(isPlain, drop)) }, 1},
	} {
		t.Run(f.name, func(t *testing.T) {
			// Where the machine is slow, the fault may strike another's request, or find no half message.
			n := 0
			for try := 0; n < f.want && try < 5; try++ {
				n = s.deliveriesUnder(t, f.hook())
			}
			if n < f.want {
				t.Errorf("order.placed was delivered %d times, want at least %d", n, f.want)
			}
		})
	}
}

// deliveriesUnder runs an order to its end while the broker is controlled by h, and returns the number of deliveries of its
// order.placed.
func (s *shop) deliveriesUnder(t *testing.T, h hook) (n int) {
	l := newLife(t, s)
	defer s.Broker().Control(h)()
	l.mustBegin()
	l.end()
	for _, e := range rocketflowtest.Events[contracts.OrderPlaced](s.Env) {
		if e.OrderID == l.id {
			n++
		}
	}
	return n
}

func both(a, b hook) hook {
	return func(r rocketmqtest.Request) rocketmqtest.Action {
		if action := a(r); action != rocketmqtest.Pass {
			return action
		}
		return b(r)
	}
}

// Nothing that ends a half message reaches the broker, nor the relay's message, until the broker discards the half message:
// the sweep sends the event.
func TestDiscardedHalfMessage(t *testing.T) {
	t.Parallel()
	s := openShop(t, rocketflowtest.Config{Broker: rocketmqtest.Config{CheckMax: 15}})
	l := newLife(t, s)
	remove := s.Broker().Control(always(isEither(isEnd, isCheck, isPlain), rocketmqtest.Drop()))
	l.mustBegin()
	for range 100 {
		if len(s.Broker().Messages("TRANS_CHECK_MAX_TIME_TOPIC")) > 0 {
			break
		}
		s.Advance(time.Second)
	}
	if n := len(s.Broker().Messages("TRANS_CHECK_MAX_TIME_TOPIC")); n != 1 {
		t.Fatalf("the broker has discarded %d half messages, want 1", n)
	}
	remove()
	l.end()
}

// The broker checks back while the transaction is open, as it waits for the response to its half message.
func TestCheckWhileOpen(t *testing.T) {
	t.Parallel()
	checked := make(chan outbox.CheckedInfo, 1000)
	s := openShop(t, rocketflowtest.Config{Configure: func(c rocketflowfx.Config) rocketflowfx.Config {
		c.Outbox.Path = outbox.HalfMessages // also on a machine that is too busy for them
		c.Outbox.HalfTimeout, c.RocketMQ.SendTimeout, c.Outbox.SweepGrace = 10*time.Second, 10*time.Second, 15*time.Second
		c.Outbox.Listener = &outbox.Listener{Checked: func(i outbox.CheckedInfo) { checked <- i }}
		return c
	}})
	l := newLife(t, s)
	s.Advance(time.Second) // the first step makes partitions, and would wait for the open transaction
	remove := s.Broker().Control(once(isHalf, rocketmqtest.DropResponse()))
	defer remove()
	done := make(chan error, 1)
	go func() { done <- l.begin() }()
	for first := true; first; {
		select {
		case i := <-checked:
			if i.Decision != broker.Unknown {
				t.Errorf("the check of an open transaction was decided with %v", i.Decision)
			}
			first = false
		case err := <-done:
			t.Fatalf("no check came while the transaction was open; %v", err)
		case <-time.After(20 * time.Millisecond):
			s.Advance(5 * time.Second) // in large steps: the request has a deadline in real time
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.end()
}
