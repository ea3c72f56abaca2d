// Package lease lets one process at a time do a job, by a row that Postgres' clock judges. Nothing depends on a session:
// a holder that freezes, or loses its network, loses the lease when its time is over, and a pooler in transaction mode
// may stand in between.
//
// A lease is no lock. A holder that was frozen and wakes up may believe for a moment, until its next Acquire, that it
// still holds what another has taken. So only jobs that two processes may do at once without harm are done under a
// lease: it saves work. What must not happen twice is decided by the statement that does it, by a row that it finds or
// locks.
//
//   - The outbox' sweep: two that send the same event cause a duplicate, which the consumers' inbox absorbs; acks are
//     inserted with ON CONFLICT DO NOTHING; how far the sweep has looked is written by the holder alone, in one statement
//     that looks at the lease, and an older statement of it stays true.
//   - Retention: rows are deleted by conditions that each statement checks itself.
//   - Partitions: making and dropping is decided in one transaction, which locks the tables and looks again.
package lease

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var file string

// DB is a pool, a connection or a transaction.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Acquire takes the lease called name in the schema for ttl, or renews it, and tells whether holder holds it now. Then at
// least half of ttl is left: a holder calls it again in less, and stops its work when it is told false. holder is drawn
// by each process, or part of one, that competes, once.
//
// In a transaction the lease is taken when that commits, and others who ask meanwhile wait for it.
func Acquire(ctx context.Context, db DB, schema, name string, holder uuid.UUID, ttl time.Duration) (held bool, err error) {
	err = db.QueryRow(ctx, queries.Parse(file, schema).Get("Acquire"), name, holder.String(), ttl.Seconds()).Scan(&held)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "40001" { // at repeatable read: another took it at the same moment
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("acquire lease %s: %w", name, err)
	}
	return held, nil
}

// Release gives the lease back, if holder has it, so that the next needn't wait until it expires.
func Release(ctx context.Context, db DB, schema, name string, holder uuid.UUID) error {
	if _, err := db.Exec(ctx, queries.Parse(file, schema).Get("Release"), name, holder.String()); err != nil {
		return fmt.Errorf("release lease %s: %w", name, err)
	}
	return nil
}
