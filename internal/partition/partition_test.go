package partition_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestPartitionsAreMadeAndDropped(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE thing (id uuid PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE thing_default PARTITION OF thing DEFAULT"); err != nil {
		t.Fatal(err)
	}
	table := partition.Table{Schema: schema, Name: "thing"}
	now := time.Now()

	var group errgroup.Group
	for range 4 { // processes that start together
		group.Go(func() error { _, err := partition.Ensure(ctx, pool, table, now, 2); return err })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	days, err := partition.Days(ctx, pool, table)
	if err != nil || len(days) != 3 || !days[0].Start.Equal(now.UTC().Truncate(24*time.Hour)) {
		t.Fatalf("days %v, %v", days, err)
	}
	if made, err := partition.Ensure(ctx, pool, table, now, 3); err != nil || len(made) != 1 {
		t.Fatalf("made %v, %v; want the one that is missing", made, err)
	}

	if _, err := pool.Exec(ctx, "INSERT INTO thing VALUES ($1), ($2)", uuid.Must(uuid.NewV7()), uuid.New()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{days[0].Name: 1, days[1].Name: 0, "thing_default": 1} {
		var got int
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM "+name).Scan(&got); err != nil || got != want {
			t.Errorf("%s holds %d rows, want %d (%v)", name, got, want, err)
		}
	}

	keep := func(context.Context, pgx.Tx) (bool, error) { return true, nil }
	if dropped, err := partition.Drop(ctx, pool, days[:1], keep); err != nil || dropped {
		t.Fatalf("dropped what was to be kept: %v, %v", dropped, err)
	}
	user, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := user.Exec(ctx, "SELECT FROM thing"); err != nil {
		t.Fatal(err)
	}
	if _, err := partition.Drop(ctx, pool, days[:1], nil); !errors.Is(err, partition.ErrBusy) {
		t.Fatalf("drop of a table in use: got %v, want ErrBusy", err)
	}
	if err := user.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if dropped, err := partition.Drop(ctx, pool, days[:1], nil); err != nil || !dropped {
		t.Fatalf("not dropped: %v", err)
	}
}

// A process that froze while it made or dropped a partition blocks others only briefly.
func TestFrozenProcessBlocksOthersBriefly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE thing (id uuid PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE thing_default PARTITION OF thing DEFAULT"); err != nil {
		t.Fatal(err)
	}
	table := partition.Table{Schema: schema, Name: "thing"}
	frozen, end := make(chan struct{}), make(chan struct{})
	var group errgroup.Group
	if _, err := partition.Ensure(ctx, pool, table, time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	days, err := partition.Days(ctx, pool, table)
	if err != nil {
		t.Fatal(err)
	}
	group.Go(func() error {
		_, err := partition.Drop(ctx, pool, days, func(context.Context, pgx.Tx) (bool, error) {
			close(frozen)
			<-end
			return true, nil
		})
		return err
	})
	<-frozen
	began := time.Now()
	if _, err := partition.Ensure(ctx, pool, table, time.Now(), 1); !errors.Is(err, partition.ErrBusy) {
		t.Errorf("while another is frozen in its turn: %v, want ErrBusy", err)
	}
	// Postgres ends the transaction of the frozen one.
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err = partition.Ensure(ctx, pool, table, time.Now(), 1); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("%v later the frozen one still holds the others up: %v", time.Since(began), err)
	}
	close(end)
	if err := group.Wait(); err == nil {
		t.Error("the frozen one committed")
	}
}
