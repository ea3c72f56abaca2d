package saga_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// The event of a payment and the deadline reach the same saga at the same time, many times. One of them makes its transition,
// the other has no effect, and they never deadlock: an error of Postgres fails the test.
func TestEventAndDeadlineExcludeEachOther(t *testing.T) {
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
				if err := within(ctx, b.pool, func(tx *testdb.Tx) error { return s.Begin(ctx, tx, key, data{key}) }); err != nil {
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

// The beginnings and events of many sagas come at the same time, in random order, and some functions fail. Each saga comes to
// its end, with each event applied once.
func TestEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	const sagas, workers = 400, 8
	b := setup(t)
	ctx := t.Context()
	if _, err := b.pool.Exec(ctx, "CREATE TABLE effects (key text, what text)"); err != nil {
		t.Fatal(err)
	}
	effect := func(ctx context.Context, tx rocketflow.Tx, key, what string) error {
		if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", key, what); err != nil {
			return err
		}
		if rand.IntN(10) == 0 {
			return errBoom
		}
		return nil
	}
	d := saga.Define[data]("any", 1).Initial("a").NoDeadline("a", "b", "c").Final("d")
	saga.On(d, "a", "b", func(ctx context.Context, tx rocketflow.Tx, s *data, _ reserved) error {
		return effect(ctx, tx, s.Key, "reserved")
	})
	saga.On(d, "b", "c", func(ctx context.Context, tx rocketflow.Tx, s *data, _ paid) error {
		return effect(ctx, tx, s.Key, "paid")
	})
	saga.On(d, "c", "d", func(ctx context.Context, tx rocketflow.Tx, s *data, _ shipped) error {
		return effect(ctx, tx, s.Key, "shipped")
	})
	saga.KeyBy(d, func(p shipped) string { return p.OrderID })
	cfg := b.cfg
	b.Engine = b.engine(t, cfg)
	s := register(t, b, d)
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	retried := func(fn func() error) error { // as a router does
		for {
			err := fn()
			var pgErr *pgconn.PgError
			if err == nil || !errors.Is(err, errBoom) && !errors.As(err, &pgErr) {
				return err
			}
			if pgErr != nil && pgErr.Code != "40P01" {
				return err
			}
		}
	}
	var steps []func() error
	for range sagas {
		key := uuid.NewString()
		steps = append(steps, func() error {
			return within(ctx, b.pool, func(tx *testdb.Tx) error { return s.Begin(ctx, tx, key, data{key}) })
		})
		for _, p := range []rocketflow.Payload{reserved{key}, paid{key, 1}, shipped{"p", key}} {
			e, err := wire.NewEvent(p)
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, func() error { _, err := b.handle(e); return err })
		}
	}
	// The events of one saga stay close together, so that they are concurrent.
	for i := 0; i < len(steps); i += 40 {
		part := steps[i:min(i+40, len(steps))]
		rand.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	var group errgroup.Group
	group.SetLimit(workers)
	for _, step := range steps {
		group.Go(func() error { return retried(step) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	number := func(sql string) (n int) {
		t.Helper()
		if err := b.pool.QueryRow(ctx, sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	poll.Until(t, "all are done", func() bool { return number("SELECT count(*) FROM saga WHERE state = 'd'") == sagas })
	if n := number("SELECT count(*) FROM effects"); n != 3*sagas {
		t.Errorf("%d effects, want %d", n, 3*sagas)
	}
	if n := number("SELECT count(*) FROM saga WHERE revision <> 4"); n != 0 {
		t.Errorf("%d sagas with other transitions than three", n)
	}
	if n := number("SELECT count(*) FROM saga_waiting"); n != 0 {
		t.Errorf("%d events left", n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("%d events waited", len(b.waits))
	if len(b.waits) < sagas/2 {
		t.Errorf("only %d events waited", len(b.waits))
	}
}
