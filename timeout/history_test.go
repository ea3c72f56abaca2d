package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// ended returns what the history says of the timeouts of a key, the first first.
func (b *bundle) ended(t *testing.T, key string) []operate.EndedTimeout {
	t.Helper()
	list, err := testoperator.New(t, b.pool, b.schema).EndedTimeouts(t.Context(), operate.TimeoutFilter{Key: key, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

// outcomes returns the outcomes of the timeouts of a key, the first first; with "!" if an operator was it, and "+" if it was armed after it.
func (b *bundle) outcomes(t *testing.T, key string) (list []string) {
	t.Helper()
	for _, e := range b.ended(t, key) {
		text := string(e.Outcome)
		if e.ByOperator {
			text += "!"
		}
		if e.NextEventID != uuid.Nil {
			text += "+"
		}
		list = append(list, text)
	}
	return list
}

func (b *bundle) wantOutcomes(t *testing.T, key string, want ...string) {
	t.Helper()
	if got := b.outcomes(t, key); !slices.Equal(got, want) {
		t.Errorf("%s: the history has %v, want %v", key, got, want)
	}
}

// event returns the event that the armed timeout of a key fires with.
func (b *bundle) event(t *testing.T, key string) rocketflow.Event {
	t.Helper()
	a, ok, err := b.Get(t.Context(), b.pool, key, "payment")
	if err != nil || !ok {
		t.Fatalf("%s is not armed: %v", key, err)
	}
	a.Event.Database = b.database(t)
	return a.Event
}

type reminder struct{}

func (reminder) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "reminders", Type: "remind", Subject: "x"}
}

func nothing(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil }

// Each way in which an epoch ends is in the history, once and in order, with the times of the epoch and the one that follows.
func TestEachEndOfATimeoutIsInTheHistory(t *testing.T) {
	t.Parallel()
	b := setup(t, nil) // not started: the test is the broker
	ctx := t.Context()
	o := testoperator.New(t, b.pool, b.schema)
	const key = "o1"
	var epochs []uuid.UUID
	note := func() { epochs = append(epochs, b.event(t, key).ID) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b.arm(t, key, time.Hour)
	note()
	b.arm(t, key, 2*time.Hour)
	note()
	must(within(ctx, b.pool, func(tx rocketflow.Tx) error {
		_, err := b.Move(ctx, tx, key, "payment", time.Now().Add(3*time.Hour))
		return err
	}))
	note()
	must(o.MoveTimeout(ctx, payment(key), time.Now().Add(4*time.Hour)))
	note()
	must(o.FireTimeout(ctx, payment(key)))
	note()
	must(handle(b.pool, b.Fence(nothing), b.event(t, key)))
	b.arm(t, key, time.Hour)
	note()
	if !b.disarm(t, key) || b.disarm(t, key) {
		t.Error("want it disarmed once")
	}
	b.arm(t, key, time.Hour)
	note()
	must(o.DisarmTimeout(ctx, payment(key)))

	b.wantOutcomes(t, key, "replaced+", "moved+", "moved!+", "moved!+", "fired", "disarmed", "disarmed!")
	for i, e := range b.ended(t, key) {
		if e.Key != key || e.Name != "payment" || e.Topic != "orders" || e.Type != "order.payment_timed_out" || e.Subject != key || e.EventID != epochs[i] {
			t.Errorf("entry %d: %+v, want event %s", i, e, epochs[i])
		}
		if next := e.NextEventID; next != uuid.Nil && next != epochs[i+1] {
			t.Errorf("entry %d is followed by %s, want %s", i, next, epochs[i+1])
		}
		if e.EndedAt.Before(e.ArmedAt) || time.Since(e.EndedAt) > time.Minute || time.Since(e.ArmedAt) > time.Minute {
			t.Errorf("entry %d: armed at %v, ended at %v", i, e.ArmedAt, e.EndedAt)
		}
		if hours := []int{1, 2, 3, 4, 0, 1, 1}[i]; e.DueAt.Sub(e.ArmedAt).Round(time.Hour) != time.Duration(hours)*time.Hour {
			t.Errorf("entry %d: armed at %v for %v", i, e.ArmedAt, e.DueAt)
		}
	}
}

// What is replaced is in the history with its own event, not with that of what replaces it.
func TestHistoryKeepsTheReplacedEvent(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	b.arm(t, "o1", time.Hour)
	err := within(ctx, b.pool, func(tx rocketflow.Tx) error {
		return b.Arm(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), reminder{})
	})
	if err != nil {
		t.Fatal(err)
	}
	b.disarm(t, "o1")
	list := b.ended(t, "o1")
	if len(list) != 2 || list[0].Topic != "orders" || list[0].Type != "order.payment_timed_out" || list[0].Subject != "o1" || list[1].Topic != "reminders" || list[1].Type != "remind" {
		t.Errorf("got %+v", list)
	}
}

// Of a transaction that is rolled back, and of an event without effect, nothing is in the history.
func TestHistoryHasOnlyWhatHappened(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	rollback := errors.New("rollback")
	b.arm(t, "o1", -time.Second)
	e := b.event(t, "o1")

	if err := handle(b.pool, b.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { return rollback }), e); !errors.Is(err, rollback) {
		t.Fatal(err)
	}
	err := within(ctx, b.pool, func(tx rocketflow.Tx) error { // commits nothing after the fence
		return errors.Join(b.Fence(nothing)(ctx, tx, e), rollback)
	})
	if !errors.Is(err, rollback) {
		t.Fatal(err)
	}
	err = within(ctx, b.pool, func(tx rocketflow.Tx) error {
		if _, err := b.Move(ctx, tx, "o1", "payment", time.Now()); err != nil {
			return err
		}
		if _, err := b.Disarm(ctx, tx, "o1", "payment"); err != nil {
			return err
		}
		return rollback
	})
	if !errors.Is(err, rollback) {
		t.Fatal(err)
	}
	b.wantOutcomes(t, "o1")

	for range 2 { // the second is a copy
		if err := handle(b.pool, b.Fence(nothing), e); err != nil {
			t.Fatal(err)
		}
	}
	b.wantOutcomes(t, "o1", "fired")

	// Disarmed while its handler runs: the handler is rolled back.
	b.arm(t, "o2", -time.Second)
	err = handle(b.pool, b.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error {
		b.disarm(t, "o2")
		return nil
	}), b.event(t, "o2"))
	if err != nil {
		t.Fatal(err)
	}
	b.wantOutcomes(t, "o2", "disarmed")
	for what, change := range map[string]func(tx rocketflow.Tx) (bool, error){ // of what isn't armed
		"move":   func(tx rocketflow.Tx) (bool, error) { return b.Move(ctx, tx, "o3", "payment", time.Now()) },
		"disarm": func(tx rocketflow.Tx) (bool, error) { return b.Disarm(ctx, tx, "o3", "payment") },
	} {
		if err := within(ctx, b.pool, func(tx rocketflow.Tx) error { _, err := change(tx); return err }); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.wantOutcomes(t, "o3")
}

// A handler that arms its own timeout again has let it fire, once, whatever it does with what it armed.
func TestHistoryOfATimeoutThatItsHandlerArmsAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler func(ctx context.Context, b *bundle, tx rocketflow.Tx) error
		want    []string
	}{
		"armed": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			return b.Arm(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), closeOrder{"o1"})
		}, []string{"fired+"}},
		"moved": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			_, err := b.Move(ctx, tx, "o1", "payment", time.Now().Add(time.Hour))
			return err
		}, []string{"fired+"}},
		"absent": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			_, err := b.ArmIfAbsent(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), closeOrder{"o1"})
			return err
		}, []string{"fired+"}},
		"armed and moved": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			if err := b.Arm(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), closeOrder{"o1"}); err != nil {
				return err
			}
			_, err := b.Move(ctx, tx, "o1", "payment", time.Now().Add(2*time.Hour))
			return err
		}, []string{"moved+", "fired+"}},
		"armed twice": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			for range 2 {
				if err := b.Arm(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), reminder{}); err != nil {
					return err
				}
			}
			return nil
		}, []string{"replaced+", "fired+"}},
		"disarmed": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			_, err := b.Disarm(ctx, tx, "o1", "payment")
			return err
		}, []string{"fired"}},
		"armed and disarmed": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			if err := b.Arm(ctx, tx, "o1", "payment", time.Now().Add(time.Hour), closeOrder{"o1"}); err != nil {
				return err
			}
			_, err := b.Disarm(ctx, tx, "o1", "payment")
			return err
		}, []string{"disarmed", "fired"}},
		"rolled back to a savepoint": {func(ctx context.Context, b *bundle, tx rocketflow.Tx) error {
			sub, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if err := b.Arm(ctx, &testdb.Tx{Tx: sub}, "o1", "payment", time.Now(), closeOrder{"o1"}); err != nil {
				return err
			}
			return sub.Rollback(ctx)
		}, []string{"fired"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			b.arm(t, "o1", -time.Second)
			e := b.event(t, "o1")
			h := b.Fence(func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error { return c.handler(ctx, b, tx) })
			if err := handle(b.pool, h, e); err != nil {
				t.Fatal(err)
			}
			b.wantOutcomes(t, "o1", c.want...)
			fired := b.ended(t, "o1")[len(c.want)-1]
			if due := fired.ArmedAt.Add(-time.Second); fired.EventID != e.ID || fired.Topic != "orders" || fired.DueAt.Sub(due).Abs() > 500*time.Millisecond {
				t.Errorf("fired: %+v", fired)
			}
			if fired.NextEventID != uuid.Nil && fired.NextEventID != b.event(t, "o1").ID {
				t.Errorf("fired, and then %s; armed is %s", fired.NextEventID, b.event(t, "o1").ID)
			}
		})
	}
}

// Transactions that arm, move and disarm the same timeouts at the same time: each epoch is in the history once, or armed.
func TestHistoryOfConcurrentChanges(t *testing.T) {
	t.Parallel()
	const workers, changes = 8, 250
	b := setup(t, nil)
	ctx := t.Context()
	var group errgroup.Group
	drawn := make([]int, workers)
	for w := range workers {
		group.Go(func() error {
			for range changes {
				key := fmt.Sprint("k", rand.IntN(3))
				var armed bool
				err := within(ctx, b.pool, func(tx rocketflow.Tx) (err error) {
					armed = false
					switch rand.IntN(4) {
					case 0:
						_, err = b.Disarm(ctx, tx, key, "payment")
						return err
					case 1:
						armed, err = b.Move(ctx, tx, key, "payment", time.Now().Add(time.Hour))
						return err
					}
					armed = true
					return b.Arm(ctx, tx, key, "payment", time.Now().Add(time.Hour), closeOrder{key})
				})
				if err != nil {
					return err
				}
				if armed {
					drawn[w]++
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, n := range drawn {
		want += n
	}
	b.wantEachOnce(t, want)
	// Each entry that names a next epoch names one that is there, and no two the same.
	var lost int
	err := b.pool.QueryRow(ctx, `SELECT count(*) FROM timeout_history h WHERE next_epoch IS NOT NULL
		AND NOT EXISTS (SELECT FROM timeout_history n WHERE n.epoch = h.next_epoch) AND NOT EXISTS (SELECT FROM timeout t WHERE t.epoch = h.next_epoch)`).Scan(&lost)
	if err != nil || lost != 0 {
		t.Errorf("%d epochs are followed by none (%v)", lost, err)
	}
}

// wantEachOnce checks that each of the epochs is either armed or in the history once.
func (b *bundle) wantEachOnce(t *testing.T, epochs int) {
	t.Helper()
	var ended, distinct, both int
	err := b.pool.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT epoch), count(*) FILTER (WHERE EXISTS (SELECT FROM timeout t WHERE t.epoch = h.epoch))
		FROM timeout_history h`).Scan(&ended, &distinct, &both)
	armed := b.count(t, "true")
	if err != nil || ended+armed != epochs || distinct != ended || both != 0 {
		t.Errorf("%d epochs: %d are armed, %d in the history with %d entries, %d are both (%v)", epochs, armed, distinct, ended, both, err)
	}
}

// A schema is migrated while processes of the version before run: they write no history, and do everything else.
func TestProcessesWithoutHistoryGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	b.arm(t, "o1", time.Hour)
	b.arm(t, "o1", time.Hour)     // the row knows the epoch before
	for _, sql := range []string{ // the statements of the version before
		`INSERT INTO timeout AS t (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, headers, body)
			VALUES ('o1', 'payment', gen_random_uuid(), now(), now(), 'test', 'orders', 'old', 'o1', '', NULL, '')
			ON CONFLICT (key, name) DO UPDATE SET epoch = excluded.epoch, due_at = excluded.due_at, handed_over = false, next_sweep_at = excluded.next_sweep_at,
				armed_at = clock_timestamp(), source = excluded.source, topic = excluded.topic, type = excluded.type, subject = excluded.subject,
				content_type = excluded.content_type, headers = excluded.headers, body = excluded.body, sends = 0, stuck_at = NULL`,
		"UPDATE timeout SET epoch = gen_random_uuid(), due_at = now() WHERE key = 'o1'",
	} {
		if _, err := b.pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	e := b.event(t, "o1")
	b.arm(t, "o1", -time.Second)
	if list := b.ended(t, "o1"); len(list) != 2 || list[1].EventID != e.ID || list[1].Type != "old" {
		t.Errorf("got %+v", list)
	}
	if _, err := b.pool.Exec(ctx, "DELETE FROM timeout WHERE key = 'o1'"); err != nil {
		t.Fatal(err)
	}
	b.wantOutcomes(t, "o1", "replaced+", "replaced+")
}

// At each isolation level the history is as complete.
func TestHistoryAtEachIsolationLevel(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			ctx := t.Context()
			in := func(fn func(tx rocketflow.Tx) error) {
				t.Helper()
				err := testdb.Retry(func() error {
					return pgx.BeginTxFunc(ctx, b.pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error { return fn(&testdb.Tx{Tx: tx}) })
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				in(func(tx rocketflow.Tx) error {
					return b.Arm(ctx, tx, "o1", "payment", time.Now().Add(-time.Second), closeOrder{"o1"})
				})
			}
			in(func(tx rocketflow.Tx) error {
				_, err := b.Move(ctx, tx, "o1", "payment", time.Now().Add(-time.Second))
				return err
			})
			e := b.event(t, "o1")
			in(func(tx rocketflow.Tx) error { return b.Fence(nothing)(ctx, tx, e) })
			b.wantOutcomes(t, "o1", "replaced+", "moved+", "fired")
		})
	}
}
