package saga_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/saga"
)

// The payment's event and the deadline, for the same saga, at the same moment, many times: one of them makes its
// transition, the other has no effect at all, and they never deadlock: an error of Postgres would fail the test.
func TestPayAgainstDeadline(t *testing.T) {
	t.Parallel()
	const sagas, workers = 1200, 6
	b := setup(t)
	ctx := t.Context()
	if _, err := b.pool.Exec(ctx, "CREATE TABLE effects (key text, what text)"); err != nil {
		t.Fatal(err)
	}
	effect := func(what string) func(context.Context, rocketflow.Tx, *data) error {
		return func(ctx context.Context, tx rocketflow.Tx, d *data) error {
			_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", d.Key, what)
			return err
		}
	}
	pays := effect("paid")
	d := saga.Define[data]("race", 1).Initial("unpaid").NoDeadline("paid").Final("done", "closed").
		Deadline("unpaid", "closed", func(*data) time.Time { return time.Now().Add(-time.Second) }, effect("closed"))
	saga.On(d, "unpaid", "paid", func(ctx context.Context, tx rocketflow.Tx, d *data, _ paid) error { return pays(ctx, tx, d) })
	saga.On[shipped](d, "paid", "done", nil)
	s, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for range workers {
		group.Go(func() error {
			for n := range sagas / workers {
				key := uuid.NewString()
				if err := within(ctx, b.pool, func(tx *testTx) error { return s.Begin(ctx, tx, key, data{key}) }); err != nil {
					return err
				}
				e, err := b.deadline(ctx, "race/"+key, "unpaid")
				if err != nil {
					return err
				}
				wait := time.Duration(rand.IntN(1500)) * time.Microsecond
				first := func() error { _, err := b.handle(e); return err }
				second := func() error { _, err := b.send(paid{key, 1}); return err }
				if n%2 == 0 {
					first, second = second, first
				}
				var race errgroup.Group
				race.Go(first)
				race.Go(func() error { time.Sleep(wait); return second() }) // spreads the order of the two, nothing waits for it
				if err := race.Wait(); err != nil {
					return fmt.Errorf("saga %s: %w", key, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var paidN, closedN, wrong, armed int
	err = b.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE s.state = 'paid'), count(*) FILTER (WHERE s.state = 'closed'),
			count(*) FILTER (WHERE e.what IS DISTINCT FROM s.state OR s.revision <> 2), (SELECT count(*) FROM timeout)
		FROM saga s LEFT JOIN effects e USING (key)`).Scan(&paidN, &closedN, &wrong, &armed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d paid, %d closed", paidN, closedN)
	if wrong != 0 || paidN+closedN != sagas || armed != 0 {
		t.Errorf("%d sagas with another effect than their state's, %d of %d in a state, %d timeouts left", wrong, paidN+closedN, sagas, armed)
	}
	if paidN < sagas/20 || closedN < sagas/20 {
		t.Errorf("%d paid, %d closed: hardly a race", paidN, closedN)
	}
}

type data struct{ Key string }
