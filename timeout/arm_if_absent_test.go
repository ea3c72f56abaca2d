package timeout_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// A program that arms its daily job at each start was down for three days: the overdue job fires all the same.
func TestArmIfAbsentKeepsAnOverdueTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	armAt := func(in time.Duration) (armed bool) {
		t.Helper()
		err := within(ctx, b.pool, func(tx rocketflow.Tx) (err error) {
			armed, err = b.ArmIfAbsent(ctx, tx, "report", "payment", time.Now().Add(in), closeOrder{"report"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return armed
	}
	if _, ok, err := b.Get(ctx, b.pool, "report", "payment"); ok || err != nil {
		t.Fatalf("armed: %v, %v", ok, err)
	}
	if !armAt(-3 * 24 * time.Hour) {
		t.Fatal("not armed")
	}
	first, ok, err := b.Get(ctx, b.pool, "report", "payment")
	if !ok || err != nil || first.Event.Type != "order.payment_timed_out" || first.Event.Headers["why"] != "late" || first.Epoch == uuid.Nil ||
		time.Since(first.DueAt) < 72*time.Hour || first.Sends != 0 || !first.StuckAt.IsZero() {
		t.Fatalf("got %+v, %v, %v", first, ok, err)
	}
	if armAt(time.Hour) {
		t.Error("armed over the overdue one")
	}
	if again, _, err := b.Get(ctx, b.pool, "report", "payment"); err != nil || again.Epoch != first.Epoch || !again.DueAt.Equal(first.DueAt) {
		t.Errorf("got %+v, %v", again, err)
	}
	b.start(t)
	if e := b.waitFired(t); e.ID != first.Epoch {
		t.Errorf("fired %v", e)
	}
}

// For the handler of its own event a timeout is absent until the handler has armed it again.
func TestArmIfAbsentInTheTimeoutsOwnHandler(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	b.arm(t, "o1", -time.Second)
	a, _, err := b.Get(ctx, b.pool, "o1", "payment")
	if err != nil {
		t.Fatal(err)
	}
	var armed []bool
	h := b.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		for range 2 {
			ok, err := b.ArmIfAbsent(ctx, tx, "o1", "payment", time.Now().Add(24*time.Hour), closeOrder{"o1"})
			if err != nil {
				return err
			}
			armed = append(armed, ok)
		}
		// What a savepoint arms goes with it.
		sp, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		inner := &testdb.Tx{Tx: sp}
		if err := b.Arm(ctx, inner, "o1", "payment", time.Now().Add(time.Hour), closeOrder{"o1"}); err != nil {
			return err
		}
		return sp.Rollback(ctx)
	})
	e := a.Event
	e.Database = b.database(t)
	if err := handle(b.pool, h, e); err != nil {
		t.Fatal(err)
	}
	next, ok, err := b.Get(ctx, b.pool, "o1", "payment")
	if err != nil || !ok || next.Epoch == a.Epoch || time.Until(next.DueAt) < 23*time.Hour {
		t.Errorf("got %+v, %v, %v", next, ok, err)
	}
	if len(armed) != 2 || !armed[0] || armed[1] {
		t.Errorf("armed: %v", armed)
	}
}

// The fence returns an error for the event of a timeout that another database armed, also if the scheduler was never started.
func TestFenceRefusesForeignTimeouts(t *testing.T) {
	t.Parallel()
	owner, other := setup(t, nil), setup(t, nil)
	ctx := t.Context()
	owner.arm(t, "o1", -time.Second)
	a, _, err := owner.Get(ctx, owner.pool, "o1", "payment")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for name, database := range map[string]string{"another's": owner.database(t), "forged": "", "nonsense": "x\x1b[31m"} {
		e := a.Event
		e.Database = database
		h := other.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { calls++; return nil })
		err := handle(other.pool, h, e)
		var foreign *timeout.ForeignError
		if !errors.As(err, &foreign) || foreign.Database != database || !errors.Is(err, rocketflow.ErrUndecodable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if calls > 0 {
		t.Errorf("%d were let through", calls)
	}
	e := a.Event
	e.Database = owner.database(t)
	if err := handle(owner.pool, owner.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { calls++; return nil }), e); err != nil || calls != 1 {
		t.Errorf("its own: %d calls, %v", calls, err)
	}
}
