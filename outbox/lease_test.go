package outbox

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/lease"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func leaseBundle(t *testing.T) (*Outbox, *sweeper) {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	o, err := New(Config{Pool: pool, Broker: noBroker{}, Source: "s", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	return o, &sweeper{outbox: o, holder: uuid.New()}
}

// A process that was frozen for so long that another sweeps ends its pass.
func TestLostLeaseEndsAPass(t *testing.T) {
	t.Parallel()
	o, s := leaseBundle(t)
	if held, err := s.acquire(t.Context()); err != nil || !held {
		t.Fatalf("held %v (%v)", held, err)
	}
	pass, end := s.keepLease(t.Context())
	defer end()
	if err := lease.Release(t.Context(), o.config.Pool, o.config.Schema, sweepLease, s.holder); err != nil {
		t.Fatal(err)
	}
	if held, err := lease.Acquire(t.Context(), o.config.Pool, o.config.Schema, sweepLease, uuid.New(), s.ttl()); err != nil || !held {
		t.Fatalf("held %v (%v)", held, err)
	}
	<-pass.Done()
	if err := context.Cause(pass); !errors.Is(err, errLeaseLost) {
		t.Errorf("the pass ended by %v", err)
	}
}

// A process that lost its lease writes nothing.
func TestOnlyTheLeaseHolderWritesProgress(t *testing.T) {
	t.Parallel()
	o, s := leaseBundle(t)
	write := func(holder uuid.UUID) int64 {
		t.Helper()
		tag, err := o.config.Pool.Exec(t.Context(), o.queries.Get("WriteProgress"), int64(5), []int64{3}, int64(3), true, sweepLease, holder.String())
		if err != nil {
			t.Fatal(err)
		}
		return tag.RowsAffected()
	}
	if n := write(s.holder); n != 0 {
		t.Error("progress was written without a lease")
	}
	if held, err := s.acquire(t.Context()); err != nil || !held {
		t.Fatalf("held %v (%v)", held, err)
	}
	if n := write(uuid.New()); n != 0 {
		t.Error("progress was written by another than the holder")
	}
	if n := write(s.holder); n != 1 {
		t.Error("the holder did not write progress")
	}
}
