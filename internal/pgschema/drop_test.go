package pgschema_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Another session and Drop wait for each other's locks.
func TestDropDespiteADeadlock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Schema(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE first (); CREATE TABLE middle (); CREATE TABLE last ()"); err != nil {
		t.Fatal(err)
	}
	other, err := pgx.Connect(ctx, testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	// Drop is the one that finds out.
	if _, err := other.Exec(ctx, "SET deadlock_timeout = '1min'; SET search_path = "+schema); err != nil {
		t.Fatal(err)
	}
	tx, err := other.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE middle"); err != nil {
		t.Fatal(err)
	}
	dropped := make(chan error, 1)
	go func() { dropped <- pgschema.Drop(ctx, testdb.URL(t), schema) }()
	waiting := "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'middle'::regclass)"
	deadline := time.Now().Add(20 * time.Second)
	for waits := false; !waits; {
		if err := pool.QueryRow(ctx, waiting).Scan(&waits); err != nil || time.Now().After(deadline) {
			t.Fatalf("Drop doesn't wait for a table that is locked: %v", err)
		}
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE first, last"); err != nil { // Drop has one of them, in whichever order it goes
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Error(err)
	}
}
