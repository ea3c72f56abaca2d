package migrations_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/test/testdb"
)

var update = flag.Bool("update", false, "write objects.txt")

// objects.txt, which Check reads, lists the objects that the migrations create.
func TestObjects(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	rows, err := pool.Query(ctx, `
		SELECT object FROM (SELECT relname || '.' || attname AS object FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
		WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'rocketflow_migration'
		UNION ALL SELECT DISTINCT proname || '()' FROM pg_proc WHERE pronamespace = to_regnamespace($1)) o
		ORDER BY object COLLATE "C"`, schema)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(names, "\n") + "\n"
	if *update {
		if err := os.WriteFile("objects.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("objects.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the migrations make other objects than objects.txt lists: run `go test ./migrations -run TestObjects -update`. They make\n%s", got)
	}
}

// Check names an object that is missing, and accepts what a newer version has added.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	for _, c := range []struct{ statement, want string }{
		{"ALTER TABLE outbox ADD COLUMN of_tomorrow text; CREATE TABLE of_tomorrow (n int); INSERT INTO rocketflow_migration VALUES (99999, '99999_tomorrow.sql')", ""},
		{"ALTER TABLE outbox_sweep RENAME COLUMN recount_at TO counted_again_at", "lacks outbox_sweep.recount_at:"},
		{"DROP TABLE saga_history", "more that this version needs"},
	} {
		if _, err := pool.Exec(ctx, c.statement); err != nil {
			t.Fatal(err)
		}
		err := migrations.Check(ctx, pool, schema)
		if c.want == "" {
			if err != nil {
				t.Errorf("after %s: %v", c.statement, err)
			}
		} else if !errors.Is(err, rocketflow.ErrNotMigrated) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("after %s: got %v, want ErrNotMigrated that says %q", c.statement, err, c.want)
		}
	}
}
