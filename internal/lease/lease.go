// Package lease elects one process at a time for a job. A lease is a row with an expiry time by the clock of Postgres. It needs
// no session: a holder that freezes or loses its network loses the lease when it expires, and a connection pooler in
// transaction mode may stand in between.
//
// A lease is no lock. A holder that was frozen may continue for a moment, until its next Acquire, although another process
// holds the lease by then. So a lease only saves work, and is used only for jobs that two processes may do at the same time
// without damage. A statement that must not take effect twice checks that by a row that it finds or locks.
//
//   - The sweep of the outbox: two processes that send the same event cause a duplicate, which the inbox of its consumers
//     absorbs. Acknowledgements are inserted with ON CONFLICT DO NOTHING. The sweep state is written in one statement that
//     checks the lease, and an older sweep state stays true.
//   - Retention: each statement that deletes rows checks their condition itself.
//   - Partitions: one transaction locks the tables, checks again, and makes or drops the partitions.
package lease

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var file string

// Acquire takes or renews the lease with this name for ttl, and reports whether holder holds it. If it does, at least half of
// ttl is left. The holder must call Acquire again within that time, and stop its work when Acquire returns false. holder is a
// random id that each competing process, or part of one, draws once.
func Acquire(ctx context.Context, pool *pgxpool.Pool, schema, name string, holder uuid.UUID, ttl time.Duration) (held bool, err error) {
	err = lazytx.On(pool).QueryRow(ctx, queries.Parse(file, schema).Get("Acquire"), name, holder.String(), ttl.Seconds()).Scan(&held)
	if err != nil {
		return false, fmt.Errorf("acquire lease %s: %w", name, err)
	}
	return held, nil
}

// Release ends the lease if holder holds it, so that the next holder doesn't have to wait until it expires.
func Release(ctx context.Context, pool *pgxpool.Pool, schema, name string, holder uuid.UUID) error {
	if _, err := lazytx.On(pool).Exec(ctx, queries.Parse(file, schema).Get("Release"), name, holder.String()); err != nil {
		return fmt.Errorf("release lease %s: %w", name, err)
	}
	return nil
}
