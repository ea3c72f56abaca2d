package saga_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// A finished saga is deleted as soon as its retention has passed by the clock, also if the clock moves while the engine reads.
func TestRetentionFollowsTheClock(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	b := setupIn(t, pool, schema)
	cfg, expired := b.cfg, make(chan int, 10)
	cfg.Clock, cfg.Router = clock, router{}
	cfg.Listener = saga.Tee(cfg.Listener, &saga.Listener{Expired: func(n int) { expired <- n }})
	b.Engine, b.router = b.engine(t, cfg), cfg.Router.(router)
	s := registerOrder(t, b)
	ctx := t.Context()
	for _, start := range []bool{true, false} { // before the first deletion, and during a pause
		b.begin(t, s, "o1", order{})
		if err := within(ctx, b.pool, func(tx *testdb.Tx) error {
			return errors.Join(s.Apply(ctx, tx, "o1", paid{}), s.Apply(ctx, tx, "o1", shipped{}))
		}); err != nil {
			t.Fatal(err)
		}
		if start {
			if err := b.Start(ctx); err != nil {
				t.Fatal(err)
			}
			defer b.Stop(ctx)
		}
		clock.FastForward(31 * 24 * time.Hour)
		select {
		case n := <-expired:
			if n != 1 {
				t.Errorf("%d expired, want 1", n)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing expired")
		}
	}
}
