package migrations_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestUpAndDown(t *testing.T) {
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

// The search path of the pool has no effect on a migration: neither tables nor functions of the service's own schema, also one
// before pg_catalog, are taken for others.
func TestSearchPathOfThePoolHasNoEffect(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, own := testdb.Schema(t)
	_, schema := testdb.Schema(t)
	config, err := pgxpool.ParseConfig(testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["search_path"] = own + ", pg_catalog"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE rocketflow_migration (mine int);
		CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'`); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(ctx, pool, schema); err != nil {
		t.Fatal(err)
	}
	var at time.Time
	if err := pool.QueryRow(ctx, "INSERT INTO "+schema+".consumer (name) VALUES ('c') RETURNING born_at").Scan(&at); err != nil {
		t.Errorf("a column's default calls a function of the service's schema: %v", err)
	}
}
