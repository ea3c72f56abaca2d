package acceptance

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// TestAllQueryModesOfPgxWork runs the parts in each query mode of pgx. Applications behind a pooler set
// default_query_exec_mode in their connection string.
func TestAllQueryModesOfPgxWork(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			newFlow(t, w, onPath(t, w, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })).run()
		})
	}
}

// TestAnyDefaultIsolationLevelWorks gives the database or role another default isolation level than read committed.
func TestAnyDefaultIsolationLevelWorks(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			newFlow(t, w, onPath(t, w, func(c *pgxpool.Config) {
				c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
			})).run()
		})
	}
}
