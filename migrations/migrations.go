// Package migrations holds rocketflow's tables as plain SQL and applies them to a Postgres schema of their own.
//
// Which migrations a schema has is in its table rocketflow_migration, so an application can use goose or any other tool
// in the same schema. Each migration runs in one transaction, in which it takes a lock that ends with it: no state of a
// session is needed, and a connection pooler in transaction mode may stand between. Up needs the right to create schemas
// only if the schema is missing, and no right but to read if nothing is pending.
package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Status is the state of one migration.
type Status struct {
	Version   int64
	Name      string
	AppliedAt time.Time // zero: pending
}

// Up applies what is pending, creating the schema if it is missing. It is safe to call from several processes at once,
// and on a schema that is up to date it changes nothing. schema is usually rocketflow.DefaultSchema.
//
// A migration waits until ctx ends for another process that migrates the schema, whatever statement_timeout and
// lock_timeout the role has, and for transactions that use a table that it changes; for these 3 s at a time, as whoever
// uses the table next waits behind it. An error that comes of such a wait is a *WaitError.
func Up(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	return UpNotify(ctx, pool, schema, nil)
}

// UpNotify is Up, and calls waiting with whom it waits for, once for each of them. waiting may be nil.
func UpNotify(ctx context.Context, pool *pgxpool.Pool, schema string, waiting func(Holder)) error {
	m := newMigrator(pool, schema, waiting)
	err := m.pending(ctx)
	for err == nil && m.missing > 0 {
		err = m.locked(ctx, m.next)
	}
	if err != nil {
		return fmt.Errorf("migrate schema %q up: %w", schema, err)
	}
	return nil
}

// Down takes the newest migration back. Everything that it created goes, with what it holds.
func Down(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	m := newMigrator(pool, schema, nil)
	if err := m.locked(ctx, m.takeBack); err != nil {
		return fmt.Errorf("migrate schema %q down: %w", schema, err)
	}
	return nil
}

// List returns all migrations, oldest first, those of a newer version of rocketflow too that the schema has. It only
// reads.
func List(ctx context.Context, pool *pgxpool.Pool, schema string) ([]Status, error) {
	m := newMigrator(pool, schema, nil)
	applied, err := m.applied(ctx, pool)
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
