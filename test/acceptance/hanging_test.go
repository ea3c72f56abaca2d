package acceptance

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// TestAHandlerThatHangsHoldsOnlyItsAggregate has a handler ignore its context for one aggregate. Those of all others have
// their effects, and Router.Err names the consumer.
func TestAHandlerThatHangsHoldsOnlyItsAggregate(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var (
		router *handlers.Router
		calls  atomic.Int32
	)
	never := make(chan struct{})
	config := rocketflowfx.Config{Service: "orders", Topics: envTopics}
	config.Handlers.Timeout = time.Second
	s := startServiceWith(t, w, config, fx.Populate(&router), fx.Invoke(func(r *handlers.Router) {
		r.Handle("ledger", envTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if e.Subject == "deaf" {
				calls.Add(1)
				<-never
			}
			return recordAs(oldType)(ctx, tx, e)
		})
	}))
	release := sync.OnceFunc(func() { close(never) })
	t.Cleanup(release) // before the service stops
	s.Publish(typed(oldType, "deaf", 1), typed(oldType, "deaf", 2))
	poll.Within(t, 20*time.Second, "the handler hangs", func() bool { return calls.Load() > 0 })
	const aggregates, each = 500, 4
	for n := range each {
		for from := 0; from < aggregates; from += 100 {
			var batch []rocketflow.Payload
			for i := range 100 {
				batch = append(batch, typed(oldType, fmt.Sprintf("o-%d", from+i), n))
			}
			s.Publish(batch...)
		}
	}
	poll.Within(t, 30*time.Second, "the events of all other aggregates have their effects", func() bool {
		return countIn(t, s, "SELECT count(*) FROM effect WHERE key <> 'deaf'") == aggregates*each
	})
	poll.Within(t, 20*time.Second, "the router names the consumer", func() bool {
		err := router.Err()
		return err != nil && strings.Contains(err.Error(), "ledger")
	})
	if n := countIn(t, s, "SELECT count(*) FROM effect WHERE key = 'deaf'"); n != 0 {
		t.Errorf("%d effects of the aggregate whose handler hangs", n)
	}
	release() // what returns after its deadline has no effect by that call; the next one has
	poll.Within(t, 30*time.Second, "the aggregate goes on", func() bool {
		w.Advance(30 * time.Second)
		w.TrySettle(100 * time.Millisecond)
		return countIn(t, s, "SELECT count(*) FROM effect WHERE key = 'deaf'") >= 2
	})
	if all, repeated := effects(t, s, oldType); all != aggregates*each+2 || repeated != 0 {
		t.Errorf("%d effects, %d of them repeated, want %d once each", all, repeated, aggregates*each+2)
	}
	if n := misordered(t, s); n != 0 {
		t.Errorf("%d effects out of order", n)
	}
	poll.Within(t, 20*time.Second, "all is well", func() bool { return router.Err() == nil })
}

// TestAHandlerThatExitsItsGoroutineFailsOnlyItsEvent has a handler end its goroutine, as testing.T.FailNow and testify's
// require do. It counts as a failed attempt of that event, and other events of its lane are handled.
func TestAHandlerThatExitsItsGoroutineFailsOnlyItsEvent(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	var exits atomic.Bool
	exits.Store(true)
	config := rocketflowfx.Config{Service: "orders", Topics: envTopics}
	config.Handlers.Lanes = 1
	s := startServiceWith(t, w, config, fx.Invoke(func(r *handlers.Router) {
		r.Handle("ledger", envTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if e.Subject == "bad" && exits.Load() {
				runtime.Goexit()
			}
			return recordAs(oldType)(ctx, tx, e)
		})
	}))
	s.Publish(typed(oldType, "good", 1), typed(oldType, "bad", 1), typed(oldType, "bad", 2), typed(oldType, "good", 2))
	s.Publish(typed(oldType, "other", 1))
	poll.Within(t, 20*time.Second, "the other aggregates have their effects", func() bool {
		return countIn(t, s, "SELECT count(*) FROM effect WHERE key <> 'bad'") == 3
	})
	poll.Within(t, 20*time.Second, "the event is parked with a failed attempt", func() bool {
		for _, p := range s.Parked() {
			if p.Event.Subject == "bad" && p.Attempts > 0 && p.LastError != "" {
				return true
			}
		}
		return false
	})
	exits.Store(false)
	w.FastForward(time.Hour)
	if all, repeated := effects(t, s, oldType); all != 5 || repeated != 0 || misordered(t, s) != 0 {
		t.Errorf("%d effects, %d of them repeated, want 5 once each and in order", all, repeated)
	}
}
