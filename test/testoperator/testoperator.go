// Package testoperator makes operators for tests.
package testoperator

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/operate"
)

// New returns the Operator of a schema.
func New(t testing.TB, pool *pgxpool.Pool, schema string) *operate.Operator {
	t.Helper()
	return Of(t, operate.Config{Pool: pool, Schema: schema})
}

// Of returns an Operator with a configuration.
func Of(t testing.TB, c operate.Config) *operate.Operator {
	t.Helper()
	o, err := operate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
