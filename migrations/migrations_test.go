package migrations_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestUpDownStatus(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Schema(t)

	if err := migrations.Check(ctx, pool, schema); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Fatalf("check of an empty schema: got %v, want ErrNotMigrated", err)
	}
	if list, err := migrations.List(ctx, pool, schema); err != nil || len(list) == 0 || !list[0].AppliedAt.IsZero() {
		t.Fatalf("list of an empty schema: got %v, %v, want all pending", list, err)
	}
	var group errgroup.Group
	for range 4 { // processes that start together
		group.Go(func() error { return migrations.Up(ctx, pool, schema) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Check(ctx, pool, schema); err != nil {
		t.Fatal(err)
	}
	list, err := migrations.List(ctx, pool, schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.AppliedAt.IsZero() {
			t.Errorf("%s is pending after Up", s.Name)
		}
	}
	for range list {
		if err := migrations.Down(ctx, pool, schema); err != nil {
			t.Fatal(err)
		}
	}
	if err := migrations.Check(ctx, pool, schema); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Fatalf("check after Down: got %v, want ErrNotMigrated", err)
	}
	var tables int
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 ", schema).Scan(&tables); err != nil || tables != 0 {
		t.Fatalf("%d tables are left after Down (%v)", tables, err)
	}
	if err := migrations.Up(ctx, pool, schema); err != nil {
		t.Fatalf("up again: %v", err)
	}
}

// The search path of the pool is none of ours, unless it has a clock for us.
func TestSearchPathOfThePool(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	url := testdb.URL(t)
	for _, clocked := range []bool{false, true} {
		_, own := testdb.Schema(t)
		_, schema := testdb.Schema(t)
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		config.ConnConfig.RuntimeParams["search_path"] = own + ", pg_catalog"
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		// A version table of the service's own must not be taken for ours.
		if _, err := pool.Exec(ctx, "CREATE TABLE rocketflow_migration (mine int)"); err != nil {
			t.Fatal(err)
		}
		if clocked {
			if err := pgclock.Install(ctx, pool, own); err != nil {
				t.Fatal(err)
			}
		}
		if err := migrations.Up(ctx, pool, schema); err != nil {
			t.Fatal(err)
		}
		var bound string
		err = pool.QueryRow(ctx, `SELECT p.pronamespace::regnamespace FROM pg_attrdef d
			JOIN pg_depend x ON x.classid = 'pg_attrdef'::regclass AND x.objid = d.oid AND x.refclassid = 'pg_proc'::regclass
			JOIN pg_proc p ON p.oid = x.refobjid
			WHERE d.adrelid = to_regclass($1)
			UNION ALL SELECT 'pg_catalog' LIMIT 1`, schema+".consumer").Scan(&bound) // Postgres notes no dependence on its own
		want := map[bool]string{false: "pg_catalog", true: own}[clocked]
		if err != nil || bound != want {
			t.Errorf("clocked %v: a default calls a function of %s (%v), want %s", clocked, bound, err, want)
		}
	}
}
