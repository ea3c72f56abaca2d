package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// A role that may not create schemas can migrate a schema that it owns.
func TestRoleWithoutTheRightToCreateSchemas(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Schema(t)
	role := testdb.Role(t)
	if _, err := pool.Exec(ctx, "ALTER SCHEMA "+schema+" OWNER TO "+role); err != nil {
		t.Fatal(err)
	}
	own := testdb.As(t, pool, role)
	if err := migrations.Up(ctx, own, schema); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Check(ctx, own, schema); err != nil {
		t.Fatal(err)
	}
	_, foreign := testdb.Schema(t)
	for _, other := range []string{schema + "_other", foreign} { // it may not create the one, and nothing in the other
		if err := migrations.Up(ctx, own, other); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("schema %s: got %v, want what Postgres says", other, err)
		}
	}
}

// A role that may only read can call Up on a schema that is up to date, as a service that migrates at its start does.
func TestUpToDateNeedsOnlyTheRightToRead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	role := testdb.Role(t)
	for _, grant := range []string{"GRANT USAGE ON SCHEMA %s TO %s", "GRANT SELECT ON %s.rocketflow_migration TO %s"} {
		if _, err := pool.Exec(ctx, fmt.Sprintf(grant, schema, role)); err != nil {
			t.Fatal(err)
		}
	}
	if err := migrations.Up(ctx, testdb.As(t, pool, role), schema); err != nil {
		t.Error(err)
	}
}

// A connection pooler passes no startup parameters, and in transaction mode there is no session.
func TestThroughAConnectionPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			direct, schema := testdb.Schema(t)
			pool := testdb.ThroughPgBouncer(t, direct, mode)
			var group errgroup.Group
			for range 4 {
				group.Go(func() error { return migrations.Up(ctx, pool, schema) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := migrations.Check(ctx, pool, schema); err != nil {
				t.Fatal(err)
			}
			if err := migrations.Down(ctx, pool, schema); err != nil {
				t.Fatal(err)
			}
			var settings string
			err := pool.QueryRow(ctx, "SELECT current_setting('search_path') || current_setting('statement_timeout')").Scan(&settings)
			if err != nil || strings.Contains(settings, schema) {
				t.Errorf("a migration left a session with %s (%v)", settings, err)
			}
		})
	}
}

func TestUpAndDownInEachExecMode(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			pool, schema := testdb.Schema(t)
			pool = testdb.Mode(t, pool, mode)
			if err := errors.Join(migrations.Up(ctx, pool, schema), migrations.Check(ctx, pool, schema), migrations.Down(ctx, pool, schema)); err != nil {
				t.Error(err)
			}
			if list, err := migrations.List(ctx, pool, schema); err != nil || !list[len(list)-1].AppliedAt.IsZero() || list[0].AppliedAt.IsZero() {
				t.Errorf("list: %v, %v; want all but the last applied", list, err)
			}
		})
	}
}

// An application migrates its own tables in the same schema with goose.
func TestApplicationMigratesWithGooseInTheSameSchema(t *testing.T) {
	t.Parallel()
	own := fstest.MapFS{}
	for i := range 9 {
		own[fmt.Sprintf("%05d_own.sql", i+1)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE own_%d (n int);\n", i)}
	}
	ctx := context.Background()
	application := func(pool *pgxpool.Pool) error {
		db := stdlib.OpenDBFromPool(pool)
		defer func() { _ = db.Close() }()
		provider, err := goose.NewProvider(goose.DialectPostgres, db, own)
		if err != nil {
			return err
		}
		_, err = provider.Up(ctx)
		return err
	}
	for _, first := range []string{"application", "rocketflow"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			pool, schema := testdb.Schema(t)
			both := []func() error{
				func() error { return application(pool) },
				func() error { return migrations.Up(ctx, pool, schema) },
			}
			if first == "rocketflow" {
				both[0], both[1] = both[1], both[0]
			}
			for _, up := range both {
				if err := up(); err != nil {
					t.Fatal(err)
				}
			}
			var theirs int
			if err := pool.QueryRow(ctx, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename LIKE 'own%'", schema).Scan(&theirs); err != nil || theirs != len(own) {
				t.Errorf("the application has %d of its %d tables (%v)", theirs, len(own), err)
			}
			if err := migrations.Check(ctx, pool, schema); err != nil {
				t.Error(err)
			}
		})
	}
}

// An older version wrote its versions to the table of goose. Its migrations are not applied again.
func TestMigrationsOfAnOlderVersionAreNotAppliedAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	list, err := migrations.List(ctx, pool, schema)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(list) - 1; list[i].Version > 6; i-- {
		if err := migrations.Down(ctx, pool, schema); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(ctx, "DROP TABLE rocketflow_migration; INSERT INTO outbox_ack VALUES (gen_random_uuid())"); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(ctx, pool, schema); err != nil {
		t.Fatal(err)
	}
	after, err := migrations.List(ctx, pool, schema)
	if err != nil || len(after) != len(list) {
		t.Fatalf("list: %v, %v", after, err)
	}
	for _, s := range after {
		if s.AppliedAt.IsZero() {
			t.Errorf("%s is pending", s.Name)
		}
	}
	var acks int
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM outbox_ack").Scan(&acks); err != nil || acks != 1 {
		t.Errorf("%d acks, want the 1 that was there (%v)", acks, err)
	}
}

// Only the version that has a migration can revert it.
func TestDownRefusesAMigrationOfANewerVersion(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	if _, err := pool.Exec(ctx, "INSERT INTO rocketflow_migration VALUES (99999, '99999_tomorrow.sql')"); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(ctx, pool, schema); err != nil {
		t.Errorf("up: %v", err)
	}
	if err := migrations.Down(ctx, pool, schema); err == nil || !strings.Contains(err.Error(), "99999_tomorrow.sql is of a newer version") {
		t.Errorf("down: got %v", err)
	}
	if list, err := migrations.List(ctx, pool, schema); err != nil || list[len(list)-1].Version != 99999 {
		t.Errorf("list: %v, %v", list, err)
	}
}

// The role has timeouts, and another process migrates the schema or uses one of its tables for longer than they allow.
func TestUpWaitsForOthersWhateverTheTimeouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, hold string }{
		{"another migration", "SELECT pg_advisory_xact_lock(hashtextextended('rocketflow migrations ' || current_schema(), 0))"},
		{"a table in use", "SELECT FROM saga"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			pool, schema := testdb.Migrated(t)
			withoutOwner(t, pool, schema)
			holder, err := pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = holder.Rollback(ctx) }()
			var pid int32
			if err := holder.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Exec(ctx, c.hold); err != nil {
				t.Fatal(err)
			}
			impatient := testdb.With(t, pool, map[string]string{"statement_timeout": "300", "lock_timeout": "300", "idle_in_transaction_session_timeout": "300"})

			// The error of a wait that ended names the session that was waited for.
			short, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			var wait *migrations.WaitError
			err = migrations.UpNotify(short, impatient, schema, func(migrations.Holder) { cancel() })
			if !errors.As(err, &wait) || len(wait.For) != 1 || wait.For[0].PID != pid || !errors.Is(err, context.Canceled) ||
				!strings.Contains(err.Error(), fmt.Sprintf("process %d, role ", pid)) {
				t.Errorf("got %v, want an error that names process %d", err, pid)
			}

			notified := make(chan migrations.Holder, 1)
			done := make(chan error, 1)
			go func() {
				done <- migrations.UpNotify(ctx, impatient, schema, func(h migrations.Holder) { notified <- h })
			}()
			select {
			case h := <-notified:
				if h.PID != pid {
					t.Errorf("it waits for %v, want process %d", h, pid)
				}
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			case <-time.After(20 * time.Second):
				t.Fatal("it did not say for whom it waits")
			}
			if err := holder.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := migrations.Check(ctx, pool, schema); err != nil {
				t.Error(err)
			}
		})
	}
}

// withoutOwner takes migrations back until that which changes the table installation.
func withoutOwner(t *testing.T, pool *pgxpool.Pool, schema string) {
	t.Helper()
	for has := true; has; {
		if err := migrations.Down(context.Background(), pool, schema); err != nil {
			t.Fatal(err)
		}
		err := pool.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'installation'::regclass AND attname = 'source' AND NOT attisdropped)").Scan(&has)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// While a migration waits for a table, other sessions can still use the table.
func TestWaitingMigrationLetsOthersThrough(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pool, schema := testdb.Migrated(t)
	withoutOwner(t, pool, schema)
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT FROM installation"); err != nil {
			return err
		}
		notified := make(chan migrations.Holder, 1)
		up, end := context.WithCancel(ctx)
		defer end()
		go func() { _ = migrations.UpNotify(up, pool, schema, func(h migrations.Holder) { notified <- h }) }()
		select {
		case <-notified:
		case <-ctx.Done():
			return ctx.Err()
		}
		begin := time.Now()
		_, err := pool.Exec(ctx, "SELECT FROM installation")
		if waited := time.Since(begin); waited > 10*time.Second {
			t.Errorf("a reader stood behind the migration for %v", waited)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
