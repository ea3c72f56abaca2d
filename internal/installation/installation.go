// Package installation assigns a Postgres schema to one service. Two services can't share a schema: its tables are subject to
// the retention of one service, are swept to the broker of one service, and contain names of timeouts and sagas that are
// unique within one service.
package installation

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var sqlFile string

// Claim assigns the schema to source if it belongs to no source, and returns the id of its database, which the events that it
// records carry. It returns a *rocketflow.SchemaOwnedError if the schema belongs to another source, and an error that matches
// rocketflow.ErrNotMigrated if the tables are missing. It doesn't write to a schema that belongs to a source.
func Claim(ctx context.Context, pool *pgxpool.Pool, schema, source string) (id string, err error) {
	sql := queries.Parse(sqlFile, schema)
	id, owner, err := Read(ctx, pool, schema)
	if err != nil {
		return "", err
	}
	if owner == "" {
		// At a higher isolation level, the loser of two concurrent claims would get a serialization error.
		if _, err := lazytx.On(pool).Exec(ctx, sql.Get("Claim"), source); err != nil {
			return "", fmt.Errorf("claim schema %q for %q: %w", schema, source, err)
		}
		if id, owner, err = Read(ctx, pool, schema); err != nil {
			return "", err
		}
	}
	if owner != source {
		return "", &rocketflow.SchemaOwnedError{Schema: schema, Owner: owner, Source: source}
	}
	return id, nil
}

// Read returns the id of the schema's database, and the source that the schema belongs to. owner is empty before the first
// start of a service.
func Read(ctx context.Context, pool *pgxpool.Pool, schema string) (id, owner string, err error) {
	err = lazytx.On(pool).QueryRow(ctx, queries.Parse(sqlFile, schema).Get("Read")).Scan(&id, &owner)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr) && (pgErr.Code == "42P01" || pgErr.Code == "42703"): // undefined_table, undefined_column
		return "", "", fmt.Errorf("schema %q: %w", schema, rocketflow.ErrNotMigrated)
	case err != nil:
		return "", "", fmt.Errorf("read owner of schema %q: %w", schema, err)
	}
	return id, owner, nil
}

// SetOwner assigns the schema to source, whatever source it belongs to, and returns the previous one. It is for services that
// were renamed.
func SetOwner(ctx context.Context, pool *pgxpool.Pool, schema, source string) (before string, err error) {
	if _, before, err = Read(ctx, pool, schema); err != nil {
		return "", err
	}
	if _, err := lazytx.On(pool).Exec(ctx, queries.Parse(sqlFile, schema).Get("Give"), source); err != nil {
		return "", fmt.Errorf("give schema %q to %q: %w", schema, source, err)
	}
	return before, nil
}
