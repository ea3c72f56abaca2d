package testdb

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/pgclock"
)

// Clock is the time of a test: a rocketflow.Clock for configurations, and the time that SQL in the test's schema reads.
type Clock struct {
	clock.Virtual
	t      testing.TB
	pool   *pgxpool.Pool
	schema string
}

// Clocked is Partitioned with a Clock.
func Clocked(t testing.TB) (*pgxpool.Pool, string, *Clock) {
	t.Helper()
	database, schema := clocked.copy(t)
	pool := open(t, database, pgclock.SearchPath(schema))
	return pool, schema, &Clock{t: t, pool: pool, schema: schema}
}

// FastForward moves the time ahead by d: first PostgreSQL's, then that of the Go code, so that what wakes up reads the moved
// time from PostgreSQL. It must not be called concurrently.
func (c *Clock) FastForward(d time.Duration) {
	c.t.Helper()
	if err := pgclock.Set(context.Background(), c.pool, c.schema, c.Offset()+d); err != nil {
		c.t.Fatal(err)
	}
	c.Advance(d)
}
