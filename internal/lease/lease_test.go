package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/internal/lease"
	"github.com/rocketflow/rocketflow/test/testdb"
)

const ttl = time.Minute

// acquire fails the test unless holder gets, or doesn't get, the lease.
func acquire(t *testing.T, pool *pgxpool.Pool, schema string, holder uuid.UUID, want bool) {
	t.Helper()
	if held, err := lease.Acquire(t.Context(), pool, schema, "job", holder, ttl); err != nil || held != want {
		t.Fatalf("held %v (%v), want %v", held, err, want)
	}
}

func TestOneHolderUntilTheLeaseExpires(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	one, two := uuid.New(), uuid.New()
	acquire(t, pool, schema, one, true)
	acquire(t, pool, schema, two, false)
	if held, err := lease.Acquire(t.Context(), pool, schema, "another job", two, ttl); err != nil || !held {
		t.Fatalf("another job's lease: held %v (%v)", held, err)
	}
	clock.FastForward(ttl * 3 / 4)
	acquire(t, pool, schema, one, true) // renewed
	clock.FastForward(ttl * 3 / 4)
	acquire(t, pool, schema, two, false)

	clock.FastForward(ttl / 2) // the holder is frozen
	acquire(t, pool, schema, two, true)
	acquire(t, pool, schema, one, false) // it continues

	if err := lease.Release(t.Context(), pool, schema, "job", one); err != nil { // not its own
		t.Fatal(err)
	}
	acquire(t, pool, schema, one, false)
	if err := lease.Release(t.Context(), pool, schema, "job", two); err != nil {
		t.Fatal(err)
	}
	acquire(t, pool, schema, one, true)
}

// A lease that was taken before the clock of Postgres was set back ends after its ttl all the same.
func TestLeaseEndsWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	one, two := uuid.New(), uuid.New()
	acquire(t, pool, schema, one, true)
	if _, err := pool.Exec(t.Context(), "UPDATE lease SET expires_at = expires_at + interval '1 day'"); err != nil {
		t.Fatal(err)
	}
	acquire(t, pool, schema, two, true)
	acquire(t, pool, schema, one, false)
}

// Acquire writes nothing if another process holds the lease, or if enough of the ttl is left.
func TestAcquireWritesOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	one, two := uuid.New(), uuid.New()
	acquire(t, pool, schema, one, true)
	row := func() (tid string) {
		if err := pool.QueryRow(t.Context(), "SELECT ctid::text || xmin::text || xmax::text FROM lease").Scan(&tid); err != nil {
			t.Fatal(err)
		}
		return tid
	}
	before := row()
	acquire(t, pool, schema, two, false)
	acquire(t, pool, schema, one, true)
	if after := row(); after != before {
		t.Errorf("the row was written: %s, then %s", before, after)
	}
}

// One of many that compete for a lease gets it, and the others get no error, also where the default isolation level is strict.
func TestOneOfManyAcquires(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	pool = testdb.With(t, pool, map[string]string{"default_transaction_isolation": "serializable"})
	for round := range 20 {
		var held atomic.Int32
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				ok, err := lease.Acquire(context.Background(), pool, schema, fmt.Sprint(round), uuid.New(), ttl)
				if ok {
					held.Add(1)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if held.Load() != 1 {
			t.Fatalf("%d hold one lease", held.Load())
		}
	}
}

func TestAcquireInEachExecMode(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	for _, mode := range testdb.Modes {
		p := testdb.Mode(t, pool, mode)
		one := uuid.New()
		acquire(t, p, schema, one, true)
		acquire(t, p, schema, uuid.New(), false)
		if err := lease.Release(t.Context(), p, schema, "job", one); err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
	}
}
