// Package pgschema drops the schemas of tests and demos.
package pgschema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Drop drops schemas with everything in them. A schema that doesn't exist is no error. Drop waits at most 10 s for each lock.
//
// A statement whose client has disconnected may still run for a moment, and hold locks that Drop takes in another order. Drop
// tries again after such a deadlock.
func Drop(ctx context.Context, url string, schemas ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("drop schemas: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SET lock_timeout = '10s'"); err != nil {
		return fmt.Errorf("drop schemas: %w", err)
	}
	for _, schema := range schemas {
		err := drop(ctx, conn, schema)
		for range attempts - 1 {
			if !deadlocked(err) {
				break
			}
			err = drop(ctx, conn, schema)
		}
		if err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
	}
	return nil
}

// attempts is how often Drop tries to drop one schema.
const attempts = 5

func drop(ctx context.Context, conn *pgx.Conn, schema string) error {
	_, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE")
	return err
}

func deadlocked(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "40P01"
}
