package lazytx_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// The cost of BEGIN and COMMIT around a statement, compared with the statement by itself.
func BenchmarkOwnStatements(b *testing.B) {
	pool, _ := testdb.Schema(b)
	ctx, db := b.Context(), lazytx.On(pool)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			if err := pool.QueryRow(ctx, "SELECT $1::int", 1).Scan(new(int)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read committed", func(b *testing.B) {
		for b.Loop() {
			if err := db.QueryRow(ctx, "SELECT $1::int", 1).Scan(new(int)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
