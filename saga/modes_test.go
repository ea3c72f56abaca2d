package saga_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// In each exec mode of pgx and at each isolation level, sagas begin and make transitions, and early events wait, are applied,
// fail and expire.
func TestSagasInEachExecModeAndIsolation(t *testing.T) {
	t.Parallel()
	testdb.InEachMode(t, func(t *testing.T, pool *pgxpool.Pool, schema string) {
		b := setupIn(t, pool, schema)
		cfg := b.cfg
		b.Engine = b.engine(t, cfg)
		failures := 1
		d := stages(func(ctx context.Context, tx rocketflow.Tx, _ *steps, p paid) error {
			var level string
			if err := tx.QueryRow(ctx, "SHOW transaction_isolation").Scan(&level); err != nil || level != string(pgx.ReadCommitted) {
				t.Errorf("a function runs at %s (%v)", level, err)
			}
			if failures--; failures >= 0 {
				return errBoom
			}
			return nil
		})
		saga.StartOn(d, func(_ context.Context, _ rocketflow.Tx, p placed) (steps, error) {
			return steps{PayBy: time.Now().Add(time.Hour)}, nil
		})
		s := register(t, b, d)
		ctx := t.Context()
		e, err := wire.NewEvent(paid{"o1", 1})
		if err != nil {
			t.Fatal(err)
		}
		e.Headers, e.Sequence, e.Time = map[string]string{"why": "late"}, 5, time.Now()
		if _, err := b.handle(e); err != nil {
			t.Fatal(err)
		}
		w := b.waiting(t, operate.WaitingFilter{Saga: "stages", Key: "o1", Statuses: []operate.WaitingStatus{operate.WaitingForState}, EventID: e.ID})
		if len(w) != 1 || w[0].Event.Headers["why"] != "late" || w[0].Event.ID != e.ID || w[0].Event.Sequence != 5 {
			t.Fatalf("waiting %+v", w)
		}
		b.must(t, placed{"o1"}, reserved{"o1"}, paid{"nobody", 1}, paid{"discarded", 1})
		if i := get(t, b, s, "o1"); i.State != "awaiting_payment" {
			t.Fatalf("got %+v", i)
		}
		again, err := wire.NewEvent(paid{"o1", 2})
		if err != nil {
			t.Fatal(err)
		}
		again.Sequence, again.Previous, again.Time = 6, 5, time.Now()
		if _, err := b.handle(again); err != nil { // behind the one that failed
			t.Fatal(err)
		}
		if _, err := pool.Exec(ctx, "UPDATE saga_waiting SET expires_at = now(), next_at = now() WHERE key = 'nobody'"); err != nil {
			t.Fatal(err)
		}
		operator := testoperator.New(t, pool, schema)
		gone := b.waiting(t, operate.WaitingFilter{Key: "discarded"})[0]
		if n, err := operator.DiscardWaiting(ctx, operate.WaitingFilter{IDs: []int64{gone.ID}}); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		failed := b.waiting(t, operate.WaitingFilter{Statuses: []operate.WaitingStatus{operate.WaitingForRetry}})[0]
		if n, err := operator.RetryWaiting(ctx, operate.WaitingFilter{IDs: []int64{failed.ID}}); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Stop(ctx); err != nil {
				t.Error(err)
			}
		}()
		poll.Until(t, "both are applied", func() bool { return len(get(t, b, s, "o1").Data.Notes) == 3 })
		poll.Until(t, "one expired", func() bool {
			return len(b.waiting(t, operate.WaitingFilter{Statuses: []operate.WaitingStatus{operate.WaitingExpired}})) == 1
		})
		b.must(t, shipped{"p", "o1"})
		records, err := testoperator.New(t, pool, schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
		if err != nil || len(records) != 1 || records[0].State != "done" || len(records[0].Transitions) != 5 {
			t.Errorf("got %+v, %v", records, err)
		}
		if err := within(ctx, pool, func(tx *testdb.Tx) error { return s.Begin(ctx, tx, "o1", steps{}) }); !errors.Is(err, saga.ErrExists) {
			t.Errorf("got %v", err)
		}
		e2, err := b.deadline(ctx, "stages/o1", "awaiting_payment")
		if err == nil {
			t.Errorf("armed: %+v", e2)
		}
	})
}
