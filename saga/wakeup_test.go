package saga_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// startWithoutPolling starts an engine whose query for due events comes only once, at the start.
func startWithoutPolling[S any](t *testing.T, b *bundle, d *saga.Definition[S]) *saga.Saga[S] {
	t.Helper()
	b.cfg.PollInterval = time.Hour
	b.Engine = b.engine(t, b.cfg)
	s := register(t, b, d)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// afterTheLastWaitingEvent is a transaction that calls then when applyAll has found no further event that it may apply.
type afterTheLastWaitingEvent struct {
	*testdb.Tx
	then func()
}

func (t *afterTheLastWaitingEvent) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.Contains(sql, "DELETE FROM") && t.then != nil {
		t.then()
		t.then = nil
	}
	return t.Tx.Query(ctx, sql, args...)
}

// openTx begins a transaction and, with event, handles it in that transaction.
func (b *bundle) openTx(t *testing.T, e *rocketflow.Event) *testdb.Tx {
	t.Helper()
	inner, err := b.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.ReadCommitted}) // as handlers do
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Rollback(context.Background()) }) // or closing the pool would wait for ever
	tx := &testdb.Tx{Tx: inner}
	if e != nil {
		if err := b.router["sagas-stages "+e.Topic+" "+e.Type](t.Context(), tx, *e); err != nil {
			t.Fatal(err)
		}
	}
	return tx
}

func event(t *testing.T, p rocketflow.Payload) rocketflow.Event {
	t.Helper()
	e, err := wire.NewEvent(p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// An event whose transaction has not seen the saga commits while another transaction applies waiting events, when that one has
// looked for the last. The event is applied right after the commit, not by the engine's poll.
func TestEventBesideATransitionIsApplied(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"the beginning", "a transition"} {
		for _, eventLast := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, event last %v", by, eventLast), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				ctx := t.Context()
				s := startWithoutPolling(t, b, stages(nil))
				pays, reserves := event(t, paid{"o1", 7}), event(t, reserved{"o1"})
				came := b.openTx(t, &pays)
				var moves func(tx rocketflow.Tx) error
				if by == "the beginning" {
					b.must(t, reserved{"o1"})
					moves = func(tx rocketflow.Tx) error {
						return s.Begin(ctx, tx, "o1", steps{PayBy: time.Now().Add(time.Hour)})
					}
				} else {
					beginSteps(t, b, s, "o1")
					b.must(t, shipped{"p", "o1"})
					moves = func(tx rocketflow.Tx) error {
						return b.router["sagas-stages "+reserves.Topic+" "+reserves.Type](ctx, tx, reserves)
					}
				}
				tx := &afterTheLastWaitingEvent{Tx: b.openTx(t, nil), then: func() {
					if err := came.Commit(ctx); err != nil {
						t.Error(err)
					}
				}}
				if err := moves(tx); err != nil {
					t.Fatal(err)
				}
				if tx.then != nil {
					t.Fatal("the transaction has applied no waiting events")
				}
				if err := tx.Commit(ctx); err != nil {
					t.Fatal(err)
				}
				after := [][]func(){tx.After, came.After}
				if !eventLast {
					slices.Reverse(after)
				}
				for _, fn := range slices.Concat(after...) {
					fn()
				}
				poll.Until(t, "the payment is applied", func() bool { return slices.Contains(get(t, b, s, "o1").Data.Notes, "paid 7") })
			})
		}
	}
}

// An event waits whose transaction did not see the saga. The next event of its stream doesn't overtake it.
func TestEventDoesNotOvertakeOneThatDidNotSeeTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil)) // the engine is stopped, so nothing is applied meanwhile
	first, second := event(t, paid{"o1", 1}), event(t, paid{"o1", 2})
	first.Sequence, second.Sequence, second.Previous = 1, 2, 1
	came := b.openTx(t, &first)
	beginSteps(t, b, s, "o1")
	if err := within(ctx, b.pool, func(tx *testdb.Tx) error { return s.Apply(ctx, tx, "o1", reserved{}) }); err != nil {
		t.Fatal(err)
	}
	if err := came.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for _, fn := range came.After {
		fn()
	}
	if _, err := b.handle(second); err != nil {
		t.Fatal(err)
	}
	if i := get(t, b, s, "o1"); len(i.Data.Notes) != 1 {
		t.Errorf("%v: the second payment has overtaken the first", i.Data.Notes)
	}
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Stop(context.Background()) }()
	poll.Until(t, "both are applied", func() bool { return len(get(t, b, s, "o1").Data.Notes) == 3 })
	if i := get(t, b, s, "o1"); !slices.Equal(i.Data.Notes, []string{"reserved", "paid 1", "paid 2"}) {
		t.Errorf("applied %v", i.Data.Notes)
	}
}

// The engine goes on at once with what one transaction leaves, without its poll.
func TestWaitingEventsThatATransactionLeavesAreAppliedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := startWithoutPolling(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	const n = 100
	for i := range n {
		b.must(t, paid{"o1", int64(i)})
	}
	b.must(t, reserved{"o1"})
	poll.Until(t, "all are applied", func() bool { return len(get(t, b, s, "o1").Data.Notes) == n+1 })
	if left := b.waiting(t, operate.WaitingFilter{}); len(left) > 0 {
		t.Errorf("waiting: %+v", left)
	}
}
