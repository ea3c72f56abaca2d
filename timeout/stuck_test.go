package timeout_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// lines is a buffer for the output of a logger that another goroutine reads.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// The event of a timeout that nobody handles is sent after growing pauses; the timeout is reported once, and stays armed.
func TestStuckTimeoutIsReportedOnce(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	stuck := make(chan timeout.Info, 100)
	var log lines
	b := setupIn(t, pool, schema, func(c *timeout.Config, m *fakeBroker) {
		c.Clock, c.SweepInterval, c.SweepGrace, c.RetryInterval = clock, time.Minute, time.Second, 30*time.Second
		c.Listener.Stuck = func(i timeout.Info) { stuck <- i }
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	b.broker.handler = nil
	b.start(t)
	for _, key := range []string{"o1", "o2"} {
		if err := within(t.Context(), pool, func(tx rocketflow.Tx) error {
			return b.Arm(t.Context(), tx, key, "payment", clock.Now().Add(time.Minute), closeOrder{key})
		}); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "the hand-over is written down", func() bool { return b.count(t, "handed_over") == 2 })
	sends := func() (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), "SELECT sum(sends) FROM timeout").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// Each step moves the clock to the next sweep of the rows.
	day := func(days int) {
		t.Helper()
		for end := clock.Now().Add(time.Duration(days) * 24 * time.Hour); ; {
			var next time.Time
			if err := pool.QueryRow(t.Context(), "SELECT max(next_sweep_at) FROM timeout").Scan(&next); err != nil {
				t.Fatal(err)
			}
			if next.After(end) {
				clock.FastForward(max(0, end.Sub(clock.Now())))
				return
			}
			before := sends()
			clock.FastForward(max(0, next.Sub(clock.Now())) + time.Second)
			poll.Until(t, "it is sent", func() bool { return sends() >= before+2 })
		}
	}
	day(1)
	if n := sends(); n < 20 || n > 32 || len(stuck) > 0 {
		t.Errorf("sent %d times on the first day, %d stuck", n, len(stuck))
	}
	before := sends()
	day(10)
	if n := sends() - before; n > 24 || n < 16 {
		t.Errorf("sent %d times in the ten days after", n)
	}
	if len(stuck) != 2 {
		t.Errorf("%d reported as stuck", len(stuck))
	}
	if i := <-stuck; i.Name != "payment" || i.Topic != "orders" || i.Type != "order.payment_timed_out" || i.Sends < 10 || i.Late < 24*time.Hour {
		t.Errorf("got %+v", i)
	}
	if n := strings.Count(log.String(), "timeouts are stuck"); n > 2 || n == 0 || !strings.Contains(log.String(), "type=order.payment_timed_out topic=orders") {
		t.Errorf("%d lines: %s", n, log.String())
	}
	a, ok, err := b.Get(t.Context(), pool, "o1", "payment")
	if err != nil || !ok || a.StuckAt.IsZero() {
		t.Errorf("got %+v, %v, %v", a, ok, err)
	}
	if err := within(t.Context(), pool, func(tx rocketflow.Tx) error {
		_, err := b.Move(t.Context(), tx, "o1", "payment", clock.Now().Add(time.Hour))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if a, _, err = b.Get(t.Context(), pool, "o1", "payment"); err != nil || a.Sends != 0 || !a.StuckAt.IsZero() {
		t.Errorf("moved: %+v, %v", a, err)
	}
}
