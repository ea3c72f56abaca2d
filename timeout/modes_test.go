package timeout_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// In each exec mode of pgx and at each isolation level, timeouts are armed, moved, disarmed, handed over, swept and fired.
func TestTimeoutsInEachExecModeAndIsolation(t *testing.T) {
	t.Parallel()
	testdb.InEachMode(t, func(t *testing.T, pool *pgxpool.Pool, schema string) {
		b := setupIn(t, pool, schema, func(c *timeout.Config, m *fakeBroker) {
			m.loseAll, c.SweepGrace = true, 50*time.Millisecond
		}).start(t)
		ctx := t.Context()
		b.arm(t, "lost", 20*time.Millisecond) // handed over, lost, sent by the sweep
		b.arm(t, "moved", time.Hour)
		b.arm(t, "disarmed", time.Hour)
		b.arm(t, "kept", time.Hour)
		change := func(tx rocketflow.Tx) error {
			if ok, err := b.Move(ctx, tx, "moved", "payment", time.Now()); !ok || err != nil {
				return fmt.Errorf("moved: %v, %w", ok, err)
			}
			if ok, err := b.ArmIfAbsent(ctx, tx, "kept", "payment", time.Now(), closeOrder{"kept"}); ok || err != nil {
				return fmt.Errorf("armed: %v, %w", ok, err)
			}
			if _, err := b.Disarm(ctx, tx, "disarmed", "payment"); err != nil {
				return err
			}
			a, ok, err := b.Get(ctx, tx, "kept", "payment")
			if !ok || a.Event.Headers["why"] != "late" || string(a.Event.Body) != `{"Order":"kept"}` {
				return fmt.Errorf("got %+v, %v, %w", a, ok, err)
			}
			return nil
		}
		// A caller's transaction may meet the hand-over, which it has to be able to try again.
		err := within(ctx, pool, change)
		for pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == "40001"; {
			err = within(ctx, pool, change)
		}
		if err != nil {
			t.Fatal(err)
		}
		fired := map[string]bool{}
		for range 2 {
			fired[b.waitFired(t).TimeoutKey] = true
		}
		if !fired["lost"] || !fired["moved"] || b.count(t, "true") != 1 {
			t.Errorf("fired %v, %d left", fired, b.count(t, "true"))
		}
	})
}
