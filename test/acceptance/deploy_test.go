package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
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

const (
	oldType = "order.placed" // both versions handle it
	newType = "order.closed" // version 2 alone does
)

// deployment is a service of which several versions run on the same tables.
type deployment struct {
	t      *testing.T
	w      *rocketflowtest.Env
	config rocketflowfx.Config
	pool   *pgxpool.Pool
	client *rocketmq.Client // of the process that was started last
	fails  atomic.Bool      // the handler of newType does
	dead   atomic.Bool      // and gives the event up
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	w := rocketflowtest.New(t)
	schema := "deploy_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	d := &deployment{t: t, w: w, pool: w.Database(schema)}
	d.config = rocketflowfx.Config{Service: "orders", Topics: envTopics, Schema: schema, CreateTopics: true}
	return d
}

// start starts a process of a version.
func (d *deployment) start(version int) *rocketflowtest.Service {
	d.t.Helper()
	s := d.w.Run(rocketflowfx.Module, fx.Supply(d.config, d.pool), fx.Populate(&d.client), fx.Invoke(func(r *handlers.Router) {
		r.Handle("ledger", envTopic, oldType, recordAs(oldType))
		if version < 2 {
			return
		}
		r.Handle("ledger", envTopic, newType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			switch {
			case d.dead.Load():
				return handlers.Dead(errors.New("this can't be closed"))
			case d.fails.Load():
				return errors.New("the bank is away")
			}
			return recordAs(newType)(ctx, tx, e)
		})
	}))
	createEffects(d.t, s)
	return s
}

// send sends event n of an aggregate, whose predecessor is that of number previous, as another service does.
func (d *deployment) send(eventType string, base, n, previous int64) rocketflow.Event {
	d.t.Helper()
	e, err := wire.NewEvent(typed(eventType, "o-1", int(n)))
	if err != nil {
		d.t.Fatal(err)
	}
	e.Source, e.Sequence, e.Time = "elsewhere", base+n, d.w.Now()
	if previous > 0 {
		e.Previous = base + previous
	}
	if _, err := d.client.Send(d.t.Context(), wire.MessageOf(e)); err != nil {
		d.t.Fatal(err)
	}
	return e
}

// wantWaiting waits until n events of newType wait in the tables with the reason, and checks that none
// had its effect.
func (d *deployment) wantWaiting(s *rocketflowtest.Service, n int) {
	d.t.Helper()
	poll.Within(d.t, 20*time.Second, fmt.Sprintf("%d events wait for a process that handles %s, and say so", n, newType), func() bool {
		waiting := 0
		for _, p := range s.Parked() {
			if p.Event.Type == newType && p.Reason == operate.StateUnhandled && p.LastError != "" {
				waiting++
			}
		}
		return waiting == n
	})
	if all, _ := effects(d.t, s, newType); all != 0 {
		d.t.Errorf("%d events of %s had an effect without a handler of theirs", all, newType)
	}
}

// wantAll waits until each type has had so many effects, checks that none is repeated or out of order, and that nothing is
// left. The clock is moved on: what waited for version 2 may be looked at some time later.
func (d *deployment) wantAll(s *rocketflowtest.Service, old, new int) {
	d.t.Helper()
	poll.Within(d.t, 20*time.Second, fmt.Sprintf("%d events of %s and %d of %s have had their effects", old, oldType, new, newType), func() bool {
		d.w.Advance(5 * time.Second)
		d.w.TrySettle(100 * time.Millisecond)
		o, _ := effects(d.t, s, oldType)
		n, _ := effects(d.t, s, newType)
		return o >= old && n >= new
	})
	for kind, want := range map[string]int{oldType: old, newType: new} {
		if all, repeated := effects(d.t, s, kind); all != want || repeated != 0 {
			d.t.Errorf("%d effects of %s, %d of them repeated, want %d once each", all, kind, repeated, want)
		}
	}
	if n := misordered(d.t, s); n != 0 {
		d.t.Errorf("%d effects out of order", n)
	}
	poll.Within(d.t, 10*time.Second, "nothing waits", func() bool { return len(s.Parked()) == 0 })
	if n := len(s.DeadLetters()); n != 0 {
		d.t.Errorf("%d dead letters", n)
	}
}

// TestARollingDeploymentKeepsEventsForTheNewHandler rolls version 2 out. Events that only version 2 handles reach version 1,
// too, which leaves them for version 2.
func TestARollingDeploymentKeepsEventsForTheNewHandler(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	old := d.start(1)
	s := d.start(2)
	const aggregates = 20
	for i := range aggregates {
		key := fmt.Sprintf("o-%d", i)
		s.Publish(typed(oldType, key, 1), typed(newType, key, 2), typed(oldType, key, 3), typed(newType, "", i))
	}
	d.wantAll(s, 2*aggregates, 2*aggregates)
	old.Stop() // the roll-out is complete
	s.Publish(typed(newType, "o-0", 4))
	d.wantAll(s, 2*aggregates, 2*aggregates+1)
}

// TestEventsOfARolledBackVersionWait rolls a deployment back. Events that only version 2 handles wait for it with their
// followers in the same aggregate. All other events are handled.
func TestEventsOfARolledBackVersionWait(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.start(2).Stop()
	s := d.start(1)
	s.Publish(typed(oldType, "o-1", 1), typed(newType, "o-1", 2), typed(oldType, "o-1", 3), typed(newType, "", 1), typed(oldType, "o-2", 1))
	d.wantWaiting(s, 2)
	poll.Within(t, 10*time.Second, "what comes before, and other aggregates, have their effects", func() bool {
		all, _ := effects(t, s, oldType)
		return all == 2
	})
	d.w.FastForward(time.Hour)
	d.wantWaiting(s, 2)
	if all, _ := effects(t, s, oldType); all != 2 {
		t.Errorf("%d effects of %s, want 2: what follows in the aggregate waits", all, oldType)
	}
	d.start(2)
	d.wantAll(s, 3, 2)
}

// TestAParkedEventOfARolledBackVersionWaits makes an event of version 2 that failed there due again when only version 1
// runs.
func TestAParkedEventOfARolledBackVersionWaits(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.fails.Store(true)
	two := d.start(2)
	two.Publish(typed(newType, "o-1", 1), typed(oldType, "o-1", 2), typed(newType, "", 1))
	poll.Within(t, 20*time.Second, "the events are parked for their next attempt", func() bool { return len(two.Parked()) == 3 })
	two.Stop()
	s := d.start(1)
	d.w.FastForward(time.Hour)
	d.wantWaiting(s, 2)
	if all, _ := effects(t, s, oldType); all != 0 {
		t.Errorf("%d effects of what follows an event that is not handled", all)
	}
	d.fails.Store(false)
	d.start(2)
	d.wantAll(s, 1, 2)
}

// TestARetriedDeadLetterOfARolledBackVersionWaits has an operator retry a dead letter of version 2 when only version 1 runs.
func TestARetriedDeadLetterOfARolledBackVersionWaits(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.dead.Store(true)
	two := d.start(2)
	two.Publish(typed(newType, "o-1", 1), typed(oldType, "o-1", 2), typed(newType, "", 1))
	poll.Within(t, 20*time.Second, "the events are dead letters", func() bool { return len(two.DeadLetters()) == 2 })
	two.Stop()
	s := d.start(1)
	if n, err := testoperator.New(t, s.Pool, s.Schema).RetryDeadLetters(t.Context(), operate.ParkedFilter{All: true}); err != nil || n != 2 {
		t.Fatalf("%d dead letters made due: %v; want 2", n, err)
	}
	d.wantWaiting(s, 2)
	d.dead.Store(false)
	d.start(2)
	d.wantAll(s, 1, 2)
}

// TestAnEventBehindAGapOfARolledBackVersionWaits fills the gap before an event of version 2 when only version 1 runs.
func TestAnEventBehindAGapOfARolledBackVersionWaits(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	two := d.start(2)
	base := d.w.Now().UnixMicro()
	send := func(eventType string, n, previous int64) { d.send(eventType, base, n, previous) }
	send(oldType, 1, 0)
	send(newType, 3, 2)
	poll.Within(t, 20*time.Second, "the event waits for its predecessor", func() bool { return len(two.Parked()) == 1 })
	two.Stop()
	s := d.start(1)
	send(oldType, 2, 1)
	poll.Within(t, 20*time.Second, "the predecessor has its effect", func() bool {
		all, _ := effects(t, s, oldType)
		return all == 2
	})
	d.wantWaiting(s, 1)
	d.start(2)
	d.wantAll(s, 2, 1)
}

// TestAnEventOfARolledBackVersionDoesNotWaitForALostOne has an event wait for version 2 whose predecessor was lost in a
// failover of the publisher: it does not wait for that predecessor. A second copy, delivered meanwhile, changes nothing.
func TestAnEventOfARolledBackVersionDoesNotWaitForALostOne(t *testing.T) {
	t.Parallel()
	for _, copies := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d copies", copies), func(t *testing.T) {
			t.Parallel()
			d := newDeployment(t)
			d.start(2).Stop()
			s := d.start(1)
			base := d.w.Now().UnixMicro()
			d.send(oldType, base, 1, 0)
			d.send(oldType, base, 4, 3) // sent by the old primary; 3 was not, and both are lost
			poll.Within(t, 20*time.Second, "the lost event waits", func() bool { return len(s.Parked()) == 1 })
			closing := d.send(newType, base, 50, 1)
			d.send(oldType, base, 60, 50)
			d.wantWaiting(s, 1)
			d.start(2)
			for range copies {
				if _, err := d.client.Send(t.Context(), wire.MessageOf(closing)); err != nil {
					t.Fatal(err)
				}
			}
			poll.Within(t, 20*time.Second, "what exists has its effects", func() bool {
				d.w.Advance(5 * time.Second)
				d.w.TrySettle(50 * time.Millisecond)
				return countIn(t, s, "SELECT count(DISTINCT number) FROM effect WHERE number IN (1, 50, 60)") == 3 && len(s.Parked()) == 0
			})
			if n := misordered(t, s); n != 0 {
				t.Errorf("%d effects out of order", n)
			}
			for _, p := range s.DeadLetters() {
				if p.Event.ID == closing.ID {
					t.Errorf("event 50 has had its effect and is a dead letter: %s", p.LastError)
				}
			}
			if n := countIn(t, s, "SELECT count(*) FROM effect WHERE number = 50"); n != 1 {
				t.Errorf("%d effects of event 50", n)
			}
		})
	}
}
