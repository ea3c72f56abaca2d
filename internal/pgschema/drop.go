// Package pgschema drops the schemas of tests and demos.
package pgschema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Drop drops schemas with all that is in them; one that isn't there is no error. It waits at most 10 s for each lock.
//
// A statement whose caller has gone may be under way for a moment yet, and hold locks that Drop wants in another order:
// what that costs Drop is tried again.
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

const attempts = 5

func drop(ctx context.Context, conn *pgx.Conn, schema string) error {
	_, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE")
	return err
}

func deadlocked(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "40P01"
}
