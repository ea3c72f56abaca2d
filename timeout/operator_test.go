package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

func payment(key string) operate.TimeoutRef { return operate.TimeoutRef{Key: key, Name: "payment"} }

// An operator fires a timeout that the broker holds for later: it fires at once and once, and the broker's timer has no effect.
func TestOperatorFiresATimeout(t *testing.T) {
	t.Parallel()
	for name, timers := range map[string]timeout.Timers{"broker": timeout.BrokerTimers, "postgres": timeout.PostgresTimers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stale := make(chan timeout.Info, 10)
			b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
				c.Timers, c.Listener.Stale = timers, func(i timeout.Info) { stale <- i }
			}).start(t)
			o := testoperator.New(t, b.pool, b.schema)
			b.arm(t, "o1", 3*time.Second)
			if timers == timeout.BrokerTimers {
				poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
			}
			armed, err := o.Timeouts(t.Context(), operate.TimeoutFilter{Key: "o1"})
			if err != nil || len(armed) != 1 {
				t.Fatal(armed, err)
			}
			began := time.Now()
			ref := payment("o1")
			ref.EventID = armed[0].EventID
			if err := o.FireTimeout(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			e := b.waitFired(t)
			if took := time.Since(began); took > 2500*time.Millisecond || e.TimeoutKey != "o1" || e.ID == ref.EventID || e.Subject != "o1" {
				t.Errorf("fired after %v: %+v", took, e)
			}
			if err := o.FireTimeout(t.Context(), ref); !errors.Is(err, operate.ErrUnknownTimeout) {
				t.Errorf("fired twice: %v", err)
			}
			if timers == timeout.BrokerTimers {
				if i := <-stale; i.Epoch != ref.EventID || len(b.fired) != 0 {
					t.Errorf("the broker's timer: %+v, %d fired", i, len(b.fired))
				}
			}
			audit, err := o.Audit(t.Context(), operate.AuditFilter{ID: "o1/payment"})
			if err != nil || len(audit) != 1 || audit[0].Action != operate.ActionFireTimeout || len(audit[0].Before) == 0 || len(audit[0].After) == 0 {
				t.Errorf("audit: %+v, %v", audit, err)
			}
		})
	}
}

// An operator moves a timeout in both directions, also beyond the horizon and into it, and disarms it.
func TestOperatorMovesAndDisarmsATimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *timeout.Config, m *fakeBroker) { m.horizon = 10 * time.Second }).start(t)
	o := testoperator.New(t, b.pool, b.schema)
	ctx := t.Context()
	b.arm(t, "o1", time.Second)
	if err := o.MoveTimeout(ctx, payment("o1"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the sweep waits for the horizon", func() bool {
		return b.count(t, "NOT handed_over AND next_sweep_at > now() + interval '59 minutes'") == 1
	})
	now := time.Now().Add(500*time.Millisecond + time.Nanosecond)
	if err := o.MoveTimeout(ctx, payment("o1"), now); err != nil {
		t.Fatal(err)
	}
	if e := b.waitFired(t); e.TimeoutKey != "o1" || time.Now().Before(now) {
		t.Errorf("fired %+v", e)
	}
	b.arm(t, "o2", time.Second)
	stale := payment("o2")
	stale.EventID[0] = 1
	if err := o.DisarmTimeout(ctx, stale); !errors.Is(err, operate.ErrUnknownTimeout) {
		t.Errorf("disarmed another arming: %v", err)
	}
	if err := o.DisarmTimeout(ctx, payment("o2")); err != nil || b.count(t, "true") != 0 {
		t.Errorf("disarm: %v", err)
	}
	for what, err := range map[string]error{
		"fire": o.FireTimeout(ctx, payment("o2")), "move": o.MoveTimeout(ctx, payment("o2"), time.Now()), "disarm": o.DisarmTimeout(ctx, payment("o2")),
	} {
		if !errors.Is(err, operate.ErrUnknownTimeout) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var field *rocketflow.FieldError
	for what, err := range map[string]error{
		"no time": o.MoveTimeout(ctx, payment("o1"), time.Time{}), "no name": o.FireTimeout(ctx, operate.TimeoutRef{Key: "o1"}),
		"no key": o.DisarmTimeout(ctx, operate.TimeoutRef{Name: "payment"}),
	} {
		if !errors.As(err, &field) {
			t.Errorf("%s: %v", what, err)
		}
	}
	audit, err := o.Audit(ctx, operate.AuditFilter{})
	if err != nil || len(audit) != 3 {
		t.Errorf("%d entries, %v", len(audit), err)
	}
}

// Operators fire, move and disarm timeouts while these come due: one that was disarmed has no effect, and any other exactly one.
func TestOperatorsRaceWithFiringTimeouts(t *testing.T) {
	t.Parallel()
	const keys, workers = 300, 6
	b := setup(t, nil)
	ctx := t.Context()
	if _, err := b.pool.Exec(ctx, "CREATE TABLE orders (id text PRIMARY KEY, closed int NOT NULL DEFAULT 0)"); err != nil {
		t.Fatal(err)
	}
	b.broker.handler = b.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		_, err := tx.Exec(ctx, "INSERT INTO orders (id, closed) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET closed = orders.closed + 1", e.Subject)
		return err
	})
	b.start(t)
	o := testoperator.New(t, b.pool, b.schema)
	var disarmed, fired, moved atomic.Int64
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for n := range keys / workers {
				key := fmt.Sprintf("o%d-%d", w, n)
				b.arm(t, key, time.Duration(rand.IntN(30))*time.Millisecond)
				for range 2 {
					var err error
					counter := &fired
					switch rand.IntN(3) {
					case 0:
						err, counter = o.DisarmTimeout(ctx, payment(key)), &disarmed
						if err == nil {
							if _, err := b.pool.Exec(ctx, "INSERT INTO orders (id, closed) VALUES ($1, 100) ON CONFLICT (id) DO UPDATE SET closed = orders.closed + 100", key); err != nil {
								return err
							}
						}
					case 1:
						err, counter = o.MoveTimeout(ctx, payment(key), time.Now().Add(time.Duration(rand.IntN(20))*time.Millisecond)), &moved
					default:
						err = o.FireTimeout(ctx, payment(key))
					}
					switch {
					case err == nil:
						counter.Add(1)
					case !errors.Is(err, operate.ErrUnknownTimeout):
						return err
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "no timeout is armed", func() bool { return b.count(t, "true") == 0 })
	var done, wrong int
	if err := b.pool.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE closed NOT IN (1, 100)) FROM orders").Scan(&done, &wrong); err != nil {
		t.Fatal(err)
	}
	if done != keys || wrong != 0 || disarmed.Load() == 0 || fired.Load() == 0 || moved.Load() == 0 {
		t.Errorf("%d of %d ended, %d wrongly; %d disarmed, %d fired, %d moved", done, keys, wrong, disarmed.Load(), fired.Load(), moved.Load())
	}
	t.Logf("%d disarmed, %d fired, %d moved", disarmed.Load(), fired.Load(), moved.Load())
}
