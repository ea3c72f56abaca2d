package timeout_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
)

// A payment that disarms the timeout and the timeout that closes the order run at the same time, a few thousand times. Exactly
// one of them takes effect, and they never deadlock.
func TestDisarmAndFireExcludeEachOther(t *testing.T) {
	t.Parallel()
	const orders, workers = 3000, 6
	b := setup(t, nil) // not started: the test is the broker
	ctx := t.Context()
	// A deadlock would show as an error long before the second that Postgres usually waits.
	if _, err := b.pool.Exec(ctx, `CREATE TABLE orders (id text PRIMARY KEY, paid int NOT NULL DEFAULT 0, closed int NOT NULL DEFAULT 0)`); err != nil {
		t.Fatal(err)
	}
	closes := b.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET closed = closed + 1 WHERE id = $1", e.Subject)
		return err
	})
	pay := func(id string) error {
		return within(ctx, b.pool, func(tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT FROM orders WHERE id = $1 FOR UPDATE", id); err != nil {
				return err
			}
			was, err := b.Disarm(ctx, tx, id, "payment")
			if err != nil || !was {
				return err
			}
			_, err = tx.Exec(ctx, "UPDATE orders SET paid = paid + 1 WHERE id = $1", id)
			return err
		})
	}
	var group errgroup.Group
	for range workers {
		group.Go(func() error {
			for n := range orders / workers {
				id := uuid.NewString()
				err := within(ctx, b.pool, func(tx rocketflow.Tx) error {
					if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
						return err
					}
					return b.Arm(ctx, tx, id, "payment", time.Now().Add(-time.Second), closeOrder{id})
				})
				if err != nil {
					return err
				}
				var epoch uuid.UUID
				var database string
				if err := b.pool.QueryRow(ctx, "SELECT epoch, (SELECT id::text FROM installation) FROM timeout WHERE key = $1", id).Scan(&epoch, &database); err != nil {
					return err
				}
				var race errgroup.Group
				wait := time.Duration(rand.IntN(800)) * time.Microsecond
				fire := func() error {
					e := rocketflow.Event{ID: epoch, TimeoutKey: id, TimeoutName: "payment", Subject: id, Topic: "orders", Type: "t", Database: database}
					return handle(b.pool, closes, e)
				}
				first, second := fire, func() error { return pay(id) }
				if n%2 == 0 {
					first, second = second, first
				}
				race.Go(first)
				race.Go(func() error { time.Sleep(wait); return second() }) // spreads the order of the two, nothing waits for it
				if n%5 == 0 {
					race.Go(fire) // a second copy
				}
				if err := race.Wait(); err != nil {
					return fmt.Errorf("order %s: %w", id, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var paid, closed, wrong int
	if err := b.pool.QueryRow(ctx, `SELECT sum(paid), sum(closed), count(*) FILTER (WHERE paid + closed <> 1) FROM orders`).Scan(&paid, &closed, &wrong); err != nil {
		t.Fatal(err)
	}
	if wrong != 0 {
		t.Errorf("%d orders both paid and closed, or neither", wrong)
	}
	if paid < orders/20 || closed < orders/20 {
		t.Errorf("%d paid, %d closed: hardly a race", paid, closed)
	}
	t.Logf("%d paid, %d closed", paid, closed)
	if n := b.count(t, "true"); n != 0 {
		t.Errorf("%d rows left", n)
	}
	b.wantEachOnce(t, orders)
	var fired, disarmed int
	if err := b.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE outcome = 'fired'), count(*) FILTER (WHERE outcome = 'disarmed') FROM timeout_history`).Scan(&fired, &disarmed); err != nil {
		t.Fatal(err)
	}
	if fired != closed || disarmed != paid {
		t.Errorf("the history has %d that fired and %d that were disarmed", fired, disarmed)
	}
}
