package migrations

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// objects lists what this version of the code needs in a schema, one per line: table.column or function(). TestObjects writes
// the file from the migrations with -update.
//
//go:embed objects.txt
var objects string

// Check returns an error that matches rocketflow.ErrNotMigrated if the schema lacks tables, columns or functions that this
// version of the code needs. It only reads the catalog, which any role may. What a newer version has added is no error, so a
// schema can be migrated before its services are updated.
func Check(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	has, err := readObjects(ctx, lazytx.On(pool), queries.Parse(queriesSQL, schema), schema)
	if err != nil {
		return fmt.Errorf("check schema %q: %w", schema, err)
	}
	needed := strings.Fields(objects)
	missing := slices.DeleteFunc(slices.Clone(needed), func(object string) bool { return has[object] })
	switch len(missing) {
	case 0:
		return nil
	case len(needed):
		return fmt.Errorf("schema %q: %w", schema, rocketflow.ErrNotMigrated)
	case 1:
		return fmt.Errorf("schema %q lacks %s: %w", schema, missing[0], rocketflow.ErrNotMigrated)
	}
	return fmt.Errorf("schema %q lacks %s and %d more that this version needs: %w", schema, missing[0], len(missing)-1, rocketflow.ErrNotMigrated)
}

// Tables returns the names of rocketflow's tables in a schema, sorted, without that of the migrations.
func Tables() []string {
	var names []string
	for _, object := range strings.Fields(objects) {
		if table, _, column := strings.Cut(object, "."); column && !slices.Contains(names, table) {
			names = append(names, table)
		}
	}
	slices.Sort(names)
	return names
}

// readObjects returns the objects of a schema, in the form of objects.txt.
func readObjects(ctx context.Context, db querier, sql queries.Set, schema string) (map[string]bool, error) {
	rows, err := db.Query(ctx, sql.Get("Objects"), schema)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, name := range names {
		has[name] = true
	}
	return has, nil
}
