package assembly

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
)

const (
	// databaseTimeout bounds the wait for a database that starts at the same time as the service.
	databaseTimeout = 15 * time.Second
	// databaseRetry is the pause between two attempts to reach it.
	databaseRetry = 200 * time.Millisecond
)

// cannotConnectNow is Postgres' code for a server that is starting up.
const cannotConnectNow = "57P03"

// AwaitDatabase returns when the database responds. A database that can't be reached, or that is starting up, is tried
// again for 15 s or until ctx ends; one that refuses the connection is an error at once.
func AwaitDatabase(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	for {
		err := pool.Ping(ctx)
		var refused *pgconn.PgError
		if err == nil || errors.As(err, &refused) && refused.Code != cannotConnectNow {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(databaseRetry):
		}
	}
}

// PrepareSchema verifies that all migrations are applied, and applies the missing ones if migrate is true. If none is
// missing, a role that may not create tables is sufficient.
func PrepareSchema(ctx context.Context, pool *pgxpool.Pool, schema string, migrate bool) error {
	schema = cmp.Or(schema, rocketflow.DefaultSchema)
	err := migrations.Check(ctx, pool, schema)
	if migrate && errors.Is(err, rocketflow.ErrNotMigrated) {
		return migrations.Up(ctx, pool, schema)
	}
	return err
}
