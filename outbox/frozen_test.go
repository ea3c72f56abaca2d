package outbox_test

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/lease"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// The process that sweeps freezes, or loses its network: its session is there for hours, but its lease expires.
func TestAnotherProcessSweepsWhenOneFreezes(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	if held, err := lease.Acquire(t.Context(), pool, schema, "outbox sweep", uuid.New(), time.Hour); err != nil || !held {
		t.Fatalf("held %v (%v)", held, err)
	}
	if _, err := pool.Exec(t.Context(), "UPDATE lease SET expires_at = clock_timestamp() + interval '10 seconds'"); err != nil {
		t.Fatal(err)
	}
	swept := make(chan outbox.SweptInfo, 100)
	b := setupIn(t, pool, schema, func(c *outbox.Config) {
		c.Clock = clock
		c.Listener = &outbox.Listener{Swept: func(i outbox.SweptInfo) {
			select {
			case swept <- i:
			default:
			}
		}}
	})
	b.owe(t, 10)
	clock.FastForward(5 * time.Second) // past the grace
	if n := len(b.broker.events()); n != 0 {
		t.Errorf("%d events were sent though another process holds the lease", n)
	}
	clock.FastForward(6 * time.Second)
	poll.Until(t, "the events", func() bool { return len(b.broker.events()) == 10 })
	if i := <-swept; i.Err != nil {
		t.Error(i.Err)
	}
}
