package migrations_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/pgtest"
	"github.com/rocketflow/rocketflow/migrations"
)

func TestUpDownStatus(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := pgtest.Schema(t)

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
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename <> 'goose_db_version'", schema).Scan(&tables); err != nil || tables != 0 {
		t.Fatalf("%d tables are left after Down (%v)", tables, err)
	}
	if err := migrations.Up(ctx, pool, schema); err != nil {
		t.Fatalf("up again: %v", err)
	}
}
