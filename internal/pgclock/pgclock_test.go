package pgclock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/test/testdb"
)

const day = 24 * time.Hour

// Each function returns the time that was set, also in prepared statements and columns' defaults.
func TestEachFunctionReturnsTheSetTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema, _ := testdb.Clocked(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE own (n int, at timestamptz NOT NULL DEFAULT now())"); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	// All on one connection, which prepares them the first time.
	queries := map[string]string{
		"clock_timestamp":    "SELECT clock_timestamp()",
		"now":                "SELECT now()",
		"transaction":        "SELECT transaction_timestamp()",
		"statement":          "SELECT statement_timestamp()",
		"the user's default": "INSERT INTO own (n) VALUES (1) RETURNING at",
		"a migration's":      "INSERT INTO consumer (name) VALUES (gen_random_uuid()::text) RETURNING born_at",
		"a partition's":      "INSERT INTO inbox (event_id, consumer) VALUES (gen_random_uuid(), 'c') RETURNING handled_at",
		"among others":       "SELECT max(at) FROM (SELECT clock_timestamp() + make_interval(secs => n * 0) AS at FROM own UNION ALL SELECT now()) t",
	}
	for _, offset := range []time.Duration{0, 30 * time.Minute, 10*day + 123456*time.Microsecond, 400 * day} {
		if err := pgclock.Set(ctx, pool, schema, offset); err != nil {
			t.Fatal(err)
		}
		for what, query := range queries {
			var at time.Time
			want := time.Now().Add(offset)
			if err := conn.QueryRow(ctx, query).Scan(&at); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if off := at.Sub(want); off < -10*time.Second || off > 10*time.Second { // two machines' clocks
				t.Errorf("%s, %v ahead: off by %v", what, offset, off)
			}
		}
	}
}

// While some connections read the time and others set it, there is no error, and the time of each reader only increases.
func TestSetWhileOthersReadTheTime(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	askers, ctx := errgroup.WithContext(context.Background())
	done := make(chan struct{})
	for range 4 {
		askers.Go(func() error {
			for last := (time.Time{}); ; {
				select {
				case <-done:
					return nil
				default:
				}
				var at time.Time
				if err := pool.QueryRow(ctx, "SELECT clock_timestamp() FROM installation WHERE created_at <= now()").Scan(&at); err != nil {
					return err
				}
				if at.Before(last) {
					return fmt.Errorf("time went back from %v to %v", last, at)
				}
				last = at
			}
		})
	}
	setters, _ := errgroup.WithContext(ctx)
	for range 4 {
		setters.Go(func() error {
			for range 25 {
				if err := pgclock.Set(ctx, pool, schema, time.Hour); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := setters.Wait(); err != nil {
		t.Error(err)
	}
	clock.FastForward(2 * time.Hour)
	close(done)
	if err := askers.Wait(); err != nil {
		t.Error(err)
	}
	var ahead float64
	if err := pool.QueryRow(context.Background(), "SELECT extract(epoch FROM now() - pg_catalog.now())::float8").Scan(&ahead); err != nil {
		t.Fatal(err)
	}
	if ahead != (2 * time.Hour).Seconds() {
		t.Errorf("%v s ahead, want 2 h", ahead)
	}
}

// An offset across the beginning of summer time is exact, whatever the session's time zone.
func TestOffsetAcrossSummerTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema, _ := testdb.Clocked(t)
	for _, offset := range []time.Duration{90 * day, 180 * day, 270 * day} { // one of them crosses, and not back
		if err := pgclock.Set(ctx, pool, schema, offset); err != nil {
			t.Fatal(err)
		}
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL timezone = 'Europe/Berlin'"); err != nil {
				return err
			}
			var seconds float64
			err := tx.QueryRow(ctx, "SELECT extract(epoch FROM now())::float8 - extract(epoch FROM pg_catalog.now())::float8").Scan(&seconds)
			if seconds != offset.Seconds() {
				t.Errorf("%v s ahead, want %v", seconds, offset)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The time is set although the default partition has rows of the new day, so that its partition can't be made.
func TestSetBesideRowsOfTheNewDay(t *testing.T) {
	t.Parallel()
	pool, _, clock := testdb.Clocked(t)
	id := uuid.Must(uuid.NewV7())
	ms := time.Now().Add(30 * day).UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO inbox (event_id, consumer) VALUES ($1, 'c')", id); err != nil {
		t.Fatal(err)
	}
	clock.FastForward(30 * day)
}

// Install returns an error if the schema isn't before pg_catalog: the clock would have no effect.
func TestInstallChecksTheSearchPath(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Schema(t)
	if err := pgclock.Install(context.Background(), pool, schema); err == nil || !strings.Contains(err.Error(), pgclock.SearchPath(schema)) {
		t.Errorf("got %v, want an error that says what the search path must be", err)
	}
}
