package installation_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestSchemaBelongsToOneSource(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	first, err := installation.Claim(ctx, pool, schema, "orders")
	if err != nil || first == "" {
		t.Fatalf("claim: %q, %v", first, err)
	}
	if again, err := installation.Claim(ctx, pool, schema, "orders"); err != nil || again != first {
		t.Errorf("the owner claims again: %q, %v", again, err)
	}
	_, err = installation.Claim(ctx, pool, schema, "billing")
	var owned *rocketflow.SchemaOwnedError
	if !errors.As(err, &owned) || *owned != (rocketflow.SchemaOwnedError{Schema: schema, Owner: "orders", Source: "billing"}) {
		t.Fatalf("another service: got %v, want a SchemaOwnedError", err)
	}
	for _, part := range []string{schema, "orders", "billing", "set Schema", "rocketflow migrate owner"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}

	if before, err := installation.SetOwner(ctx, pool, schema, "billing"); err != nil || before != "orders" {
		t.Fatalf("give: %q, %v", before, err)
	}
	if _, err := installation.Claim(ctx, pool, schema, "billing"); err != nil {
		t.Errorf("after it was given: %v", err)
	}
}

// Of concurrent claims exactly one succeeds, at any isolation level.
func TestConcurrentClaims(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"read committed", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			pool, schema := testdb.Migrated(t)
			pool = testdb.With(t, pool, map[string]string{"default_transaction_isolation": level})
			var starts errgroup.Group
			claimed := make([]error, 12)
			for i := range claimed {
				starts.Go(func() error {
					_, err := installation.Claim(context.Background(), pool, schema, []string{"orders", "billing", "stock"}[i%3])
					var owned *rocketflow.SchemaOwnedError
					if claimed[i] = err; !errors.As(err, &owned) {
						return err
					}
					return nil
				})
			}
			if err := starts.Wait(); err != nil {
				t.Fatal(err)
			}
			owners := map[int]bool{}
			for i, err := range claimed {
				if err == nil {
					owners[i%3] = true
				}
			}
			if len(owners) != 1 {
				t.Errorf("%d services own the schema, want 1", len(owners))
			}
		})
	}
}

func TestNotMigrated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Schema(t)
	if _, err := installation.Claim(ctx, pool, schema, "orders"); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Errorf("without tables: got %v, want ErrNotMigrated", err)
	}
	if _, err := pool.Exec(ctx, "CREATE TABLE installation (id uuid)"); err != nil {
		t.Fatal(err)
	}
	if _, err := installation.Claim(ctx, pool, schema, "orders"); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Errorf("with a table of an older version: got %v, want ErrNotMigrated", err)
	}
}
