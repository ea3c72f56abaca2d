package acceptance

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

// armSoon arms a timeout that is due in a minute.
func armSoon(w *rocketflowtest.Env, s *rocketflowtest.Service, timer *timeout.Scheduler) {
	s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		return timer.Arm(ctx, tx, "o-1", "fee", w.Now().Add(time.Minute), deadline{"o-1"})
	})
}

// sixHours has the sweep send what it takes for overdue, again and again.
func sixHours(w *rocketflowtest.Env) {
	for range 6 * 12 {
		w.Advance(5 * time.Minute)
		w.TrySettle(50 * time.Millisecond)
	}
}

// TestADiscardedTimeoutDoesNotFireAgain has a handler discard a timeout's event. That ends the timeout.
func TestADiscardedTimeoutDoesNotFireAgain(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]error{
		"discard": handlers.Discard(errors.New("the order is gone: no fee")),
		"stale":   rocketflow.ErrStale,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			var timer *timeout.Scheduler
			var calls atomic.Int32
			s := w.Start(rocketflowfx.Config{Service: "orders", Topics: envTopics}, fx.Populate(&timer), fx.Invoke(func(r *handlers.Router) {
				handlers.On(r, "fees", func(context.Context, rocketflow.Tx, deadline) error {
					calls.Add(1)
					return result
				})
			}))
			armSoon(w, s, timer)
			w.FastForward(2 * time.Minute)
			sixHours(w)
			if n, armed := calls.Load(), s.Timeouts(); n != 1 || len(armed) != 0 {
				t.Errorf("the handler was called %d times, want once; %d timeouts are armed", n, len(armed))
			}
		})
	}
}

// TestADeadTimeoutIsNotSentAgain checks that a timeout's event whose attempts ended is one dead letter, and none after an
// operator discards it.
func TestADeadTimeoutIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var timer *timeout.Scheduler
	var calls atomic.Int32
	s := w.Start(rocketflowfx.Config{Service: "orders", Topics: envTopics}, fx.Populate(&timer), fx.Invoke(func(r *handlers.Router) {
		handlers.On(r, "fees", func(context.Context, rocketflow.Tx, deadline) error {
			calls.Add(1)
			return handlers.Dead(errors.New("no fee can be charged"))
		})
	}))
	armSoon(w, s, timer)
	poll.Within(t, 20*time.Second, "the event is a dead letter", func() bool {
		w.Advance(time.Minute)
		w.TrySettle(50 * time.Millisecond)
		return len(s.DeadLetters()) == 1
	})
	before := calls.Load() // in a batch an event that fails may be called once more
	sixHours(w)
	if n := len(s.DeadLetters()); n != 1 || calls.Load() != before {
		t.Errorf("six hours later: %d dead letters, want 1; the handler was called %d times more", n, calls.Load()-before)
	}
	if n, err := testoperator.New(t, s.Pool, s.Schema).DiscardDeadLetters(t.Context(), operate.ParkedFilter{All: true}); err != nil || n != 1 {
		t.Fatalf("discarded %d: %v; want 1", n, err)
	}
	sixHours(w)
	if dead, armed := len(s.DeadLetters()), s.Timeouts(); dead != 0 || len(armed) != 0 || calls.Load() != before {
		t.Errorf("six hours after it was discarded: %d dead letters, %d timeouts armed, %d more calls", dead, len(armed), calls.Load()-before)
	}
}

// TestATimeoutWithoutItsFenceIsADeadLetter runs a process of the service without a scheduler, so that nothing fences its
// timeouts. Its handler must not repeat an effect: the event is a dead letter that says what is missing.
func TestATimeoutWithoutItsFenceIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var timer *timeout.Scheduler
	s := startService(t, w, "orders", fx.Populate(&timer))
	config := rocketflowfx.Config{Service: "orders", Topics: envTopics, Schema: s.Schema, CreateTopics: true}
	w.Run(rocketflowfx.RocketMQ, rocketflowfx.Outbox, rocketflowfx.Handlers, fx.Supply(config, s.Pool), fx.Invoke(func(r *handlers.Router) {
		r.Handle("fees", envDeadlineTopic, deadline{}.EventMeta().Type, recordAs("fee"))
	}))
	armSoon(w, s, timer)
	poll.Within(t, 20*time.Second, "the event is a dead letter that names the fence", func() bool {
		w.Advance(time.Minute)
		w.TrySettle(50 * time.Millisecond)
		dead := s.DeadLetters()
		return len(dead) == 1 && strings.Contains(strings.ToLower(dead[0].LastError), "fence")
	})
	sixHours(w)
	if all, _ := effects(t, s, "fee"); all != 0 || len(s.DeadLetters()) != 1 {
		t.Errorf("six hours later: the fee was charged %d times, %d dead letters; want 0 and 1", all, len(s.DeadLetters()))
	}
}

// TestAForgedTimeoutHasNoEffect sends a message with the properties of a timeout. It neither bypasses the inbox nor has the
// effect of a timeout.
func TestAForgedTimeoutHasNoEffect(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var client *rocketmq.Client
	s := startService(t, w, "orders", fx.Populate(&client), fx.Invoke(func(r *handlers.Router) {
		r.Handle("fees", envDeadlineTopic, deadline{}.EventMeta().Type, recordAs("fee"))
	}))
	e, err := wire.NewEvent(deadline{"o-1"})
	if err != nil {
		t.Fatal(err)
	}
	e.Source, e.Time, e.TimeoutKey, e.TimeoutName, e.Database = "elsewhere", w.Now(), "o-1", "fee", "00000000-0000-4000-8000-000000000001"
	for range 3 {
		if _, err := client.Send(t.Context(), wire.MessageOf(e)); err != nil {
			t.Fatal(err)
		}
	}
	poll.Within(t, 20*time.Second, "the event is a dead letter", func() bool { return len(s.DeadLetters()) > 0 })
	w.TrySettle(time.Second)
	if all, _ := effects(t, s, "fee"); all != 0 || len(s.DeadLetters()) != 1 {
		t.Errorf("%d effects, %d dead letters; want 0 and 1", all, len(s.DeadLetters()))
	}
}
