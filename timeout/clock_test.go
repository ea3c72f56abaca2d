package timeout_test

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// When the clock is moved past a due time, the timeout fires without waiting for the sweep's interval, although the broker's
// clock was not moved; and one that comes within the horizon is handed over.
func TestTimeoutsFollowTheClock(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	handedOver, fired := make(chan timeout.Info, 10), make(chan timeout.Info, 10)
	b := setupIn(t, pool, schema, func(c *timeout.Config, m *fakeBroker) {
		m.horizon, m.loseAll = 1000*time.Hour, true
		c.Clock, c.Horizon, c.SweepInterval, c.SweepGrace = clock, time.Hour, time.Minute, time.Second
		c.Listener.HandedOver = func(i timeout.Info) { handedOver <- i }
		c.Listener.Fired = func(i timeout.Info) { fired <- i }
	}).start(t)
	soon := func(what string, happened <-chan timeout.Info, key string) {
		t.Helper()
		select {
		case i := <-happened:
			if i.Key != key || i.Late < 0 || i.Late > 10*time.Second {
				t.Errorf("%s: %+v, want that of %s", what, i, key)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("not soon: " + what)
		}
	}
	arm := func(key string, in time.Duration) {
		t.Helper()
		if err := within(t.Context(), pool, func(tx rocketflow.Tx) error {
			return b.Arm(t.Context(), tx, key, "payment", clock.Now().Add(in), closeOrder{key})
		}); err != nil {
			t.Fatal(err)
		}
	}
	const grace = 2 * time.Second
	// What is handed over is looked at again a grace after that is written down, which comes after the hand-over.
	marked := func(n int) {
		t.Helper()
		poll.Until(t, "the hand-over is written down", func() bool { return b.count(t, "handed_over") == n })
	}
	arm("near", 30*time.Minute)
	arm("far", 72*time.Hour)
	soon("handed over by who armed it", handedOver, "near")
	marked(1)
	clock.FastForward(29 * time.Minute)
	if n := b.count(t, "true"); n != 2 {
		t.Errorf("%d are armed, want 2", n)
	}
	clock.FastForward(time.Minute + grace)
	soon("fired", fired, "near")

	clock.FastForward(71 * time.Hour)
	soon("handed over by the sweep", handedOver, "far")
	marked(1)
	clock.FastForward(30 * time.Minute)
	soon("fired", fired, "far")

	arm("later", 30*time.Minute) // by the clock that was moved
	soon("handed over by who armed it", handedOver, "later")
	marked(1)
	clock.FastForward(30*time.Minute + grace)
	soon("fired", fired, "later")
}
