package acceptance

import (
	"context"
	"errors"
	"fmt"
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
)

// TestOutagesOfMinutesAndHoursNeedNoOperator has what a handler calls fail for some minutes, or for hours. With the default
// retry policy no event needs an operator.
func TestOutagesOfMinutesAndHoursNeedNoOperator(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{5 * time.Minute, 8 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			back := w.Now().Add(away)
			s := startService(t, w, "orders", fx.Invoke(func(r *handlers.Router) {
				r.Handle("ledger", envTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
					if w.Now().Before(back) {
						return errors.New("the bank is away")
					}
					return recordAs(oldType)(ctx, tx, e)
				})
			}))
			const events = 20
			for i := range events {
				s.Publish(typed(oldType, fmt.Sprintf("o-%d", i/2), i))
			}
			w.FastForward(24 * time.Hour)
			all, repeated := effects(t, s, oldType)
			if dead := len(s.DeadLetters()); all != events || repeated != 0 || dead != 0 || misordered(t, s) != 0 {
				t.Errorf("a day later: %d effects of %d events, %d of them repeated; %d dead letters", all, events, repeated, dead)
			}
		})
	}
}

// TestAnEventDeliveredAgainWhileParkedHasItsEffectOnce delivers an unordered event again while it waits for its next
// attempt. It has its effect once, at that attempt.
func TestAnEventDeliveredAgainWhileParkedHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var client *rocketmq.Client
	var fails atomic.Bool
	fails.Store(true)
	s := startService(t, w, "orders", fx.Populate(&client), fx.Invoke(func(r *handlers.Router) {
		r.Handle("ledger", envTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if fails.Load() {
				return errors.New("the bank is away")
			}
			return recordAs(oldType)(ctx, tx, e)
		})
	}))
	s.Publish(typed(oldType, "", 1), typed(oldType, "", 2))
	poll.Within(t, 20*time.Second, "the events are parked", func() bool { return len(s.Parked()) == 2 })
	if n, err := testoperator.Of(t, operate.Config{Pool: s.Pool, Schema: s.Schema, Broker: client}).Resend(t.Context(), operate.ResendFilter{All: true}); err != nil || n != 2 {
		t.Fatalf("%d events sent again: %v; want 2", n, err)
	}
	w.Settle()
	fails.Store(false)
	w.FastForward(time.Hour)
	if all, repeated := effects(t, s, oldType); all != 2 || repeated != 0 {
		t.Errorf("%d effects, %d of them repeated, want 2 once each", all, repeated)
	}
}

// TestUnorderedEventsWithSlowHandlersAllHaveTheirEffect gives unordered events handlers so slow that one transaction doesn't
// take all of them: the rest have their effects in a later one.
func TestUnorderedEventsWithSlowHandlersAllHaveTheirEffect(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	config := rocketflowfx.Config{Service: "orders", Topics: envTopics}
	config.Handlers.Lanes = 1
	began := make(chan struct{}, 100)
	s := startServiceWith(t, w, config, fx.Invoke(func(r *handlers.Router) {
		r.Handle("ledger", envTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			began <- struct{}{}
			if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.4)"); err != nil { // what such a handler does, if slowly
				return err
			}
			return recordAs(oldType)(ctx, tx, e)
		})
	}))
	s.Publish(typed(oldType, "", 0))
	<-began // what comes now gathers
	const events = 8
	for i := 1; i < events; i++ {
		s.Publish(typed(oldType, "", i))
	}
	w.Settle()
	if all, repeated := effects(t, s, oldType); all != events || repeated != 0 {
		t.Errorf("%d effects of %d events, %d of them repeated", all, events, repeated)
	}
}

// TestAnEventTooOldForTheInboxIsADeadLetter checks that an event that can't be distinguished from a duplicate because it is too old is a dead
// letter, and is handled when an operator retries it.
func TestAnEventTooOldForTheInboxIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var client *rocketmq.Client
	s := startService(t, w, "orders", fx.Populate(&client), handle("ledger", oldType))
	e, err := wire.NewEvent(typed(oldType, "", 1))
	if err != nil {
		t.Fatal(err)
	}
	e.Source, e.Time = "elsewhere", w.Now().Add(-30*24*time.Hour)
	if _, err := client.Send(t.Context(), wire.MessageOf(e)); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 20*time.Second, "the event is a dead letter", func() bool { return len(s.DeadLetters()) == 1 })
	if n, err := testoperator.New(t, s.Pool, s.Schema).RetryDeadLetters(t.Context(), operate.ParkedFilter{All: true}); err != nil || n != 1 {
		t.Fatalf("%d dead letters made due: %v; want 1", n, err)
	}
	poll.Within(t, 20*time.Second, "it has its effect", func() bool {
		w.Advance(time.Second)
		all, _ := effects(t, s, oldType)
		return all == 1
	})
	poll.Within(t, 10*time.Second, "nothing waits", func() bool { return len(s.Parked())+len(s.DeadLetters()) == 0 })
}
