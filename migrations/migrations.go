// Package migrations creates rocketflow's tables in a Postgres schema of their own, and changes them for a new version of
// rocketflow. Call [Up] before a service starts, or run `rocketflow migrate up`:
//
//	if err := migrations.Up(ctx, pool, rocketflow.DefaultSchema); err != nil {
//		return err
//	}
//
// The migrations are plain SQL files. The table rocketflow_migration of the schema lists those that were applied, so an
// application can use goose or any other tool for its own tables in the same schema. Each migration runs in one transaction
// that takes a lock until its end. It needs no state of a session, so a connection pooler in transaction mode may stand in
// between. Up needs the right to create schemas only if the schema is missing, and only the right to read if nothing is pending.
package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// Status is the status of one migration in a schema.
type Status struct {
	// Version is the number of the migration. Migrations are applied in the order of their versions.
	Version int64
	// Name is the name of the migration's file.
	Name string
	// AppliedAt is when the migration was applied. It is zero if the migration is pending.
	AppliedAt time.Time
}

// Up applies the pending migrations, and creates the schema if it is missing. On a schema that is up to date it changes nothing.
// Several processes may call it at the same time. schema is usually rocketflow.DefaultSchema.
//
// Up waits until ctx ends for another process that migrates the schema, and for transactions that use a table which a migration
// changes, whatever statement_timeout and lock_timeout the role has. It waits for such transactions for 3 s at a time, because
// other transactions that use the table wait behind the migration. If ctx ends during a wait, the error is a *WaitError.
func Up(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	return UpNotify(ctx, pool, schema, nil)
}

// UpNotify is Up, and calls waiting once for each session that it waits for. waiting may be nil.
func UpNotify(ctx context.Context, pool *pgxpool.Pool, schema string, waiting func(Holder)) error {
	m := newMigrator(pool, schema, waiting)
	err := m.countPending(ctx)
	for err == nil && m.missing > 0 {
		err = m.locked(ctx, m.applyNext)
	}
	if err != nil {
		return fmt.Errorf("migrate schema %q up: %w", schema, err)
	}
	return nil
}

// Down reverts the newest migration. It drops what the migration created, with all rows. It returns an error if no migration is
// applied, or if the newest one is of a newer version of rocketflow.
func Down(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	m := newMigrator(pool, schema, nil)
	if err := m.locked(ctx, m.revert); err != nil {
		return fmt.Errorf("migrate schema %q down: %w", schema, err)
	}
	return nil
}

// List returns all migrations, oldest first, including those of a newer version of rocketflow that were applied to the schema.
// It only reads.
func List(ctx context.Context, pool *pgxpool.Pool, schema string) ([]Status, error) {
	m := newMigrator(pool, schema, nil)
	applied, err := m.applied(ctx, lazytx.On(pool))
	if err != nil {
		return nil, fmt.Errorf("read migrations of schema %q: %w", schema, err)
	}
	var list []Status
	for _, f := range files {
		s := Status{Version: f.version, Name: f.name}
		if len(applied) > 0 && applied[0].Version == f.version {
			s.AppliedAt, applied = applied[0].AppliedAt, applied[1:]
		}
		list = append(list, s)
	}
	return append(list, applied...), nil
}

func quote(schema string) string { return pgx.Identifier{schema}.Sanitize() }
