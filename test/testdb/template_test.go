package testdb_test

import (
	"slices"
	"testing"

	"github.com/rocketflow/rocketflow/test/testdb"
)

// Copies of a template are installations of their own, whose functions change their own schema.
func TestCopiesAreInstallationsOfTheirOwn(t *testing.T) {
	t.Parallel()
	var ids []string
	for range 2 {
		pool, schema := testdb.Partitioned(t)
		var id, day string
		if err := pool.QueryRow(t.Context(), "SELECT id::text FROM installation").Scan(&id); err != nil {
			t.Fatal(err)
		}
		err := pool.QueryRow(t.Context(), `SELECT to_regclass($1 || '.inbox_p20200101')::text FROM (
			SELECT `+schema+`.make_partition('inbox', 'inbox_p20200101', '016f5e66-e800-0000-0000-000000000000', '016f638d-4400-0000-0000-000000000000') OFFSET 0) made`,
			schema).Scan(&day)
		if err != nil || day != "inbox_p20200101" {
			t.Errorf("made %q, %v", day, err)
		}
		if slices.Contains(ids, id) {
			t.Errorf("two copies have the id %s", id)
		}
		ids = append(ids, id)
	}
}
