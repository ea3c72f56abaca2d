package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
)

const codeMigrated = "postgres-migrated"

var postgresChecks = []check{
	{
		Check: Check{Code: "postgres-primary", Group: Postgres, Severity: Critical, Pre: true,
			Title: "The database is a primary that takes writes",
			About: `A replica takes no writes, so nothing can be published or handled on it, and a check-back that reads a replica can miss a row that was committed.

Mend: let DATABASE_URL name the primary. With several hosts in it, add target_session_attrs=read-write.`},
		database: postgresPrimary,
	},
	{
		Check: Check{Code: codeMigrated, Group: Postgres, Severity: Critical,
			Title: "The schema has the tables that this version of rocketflow needs",
			About: `A service of this version doesn't start on the schema. What a newer version has added is no finding.

Mend: run rocketflow migrate up of this version, with a role that owns the schema.`},
		schema: postgresMigrated,
	},
}

func postgresPrimary(_ context.Context, d *database) []Result {
	if d.replica {
		return one(found("the server is a replica: it takes no writes", "the primary", "# in DATABASE_URL, with all hosts:\ntarget_session_attrs=read-write"))
	}
	return one(ok("the server is a primary"))
}

func postgresMigrated(ctx context.Context, s *schema) []Result {
	err := migrations.Check(ctx, s.database.Pool, s.name)
	switch {
	case errors.Is(err, rocketflow.ErrNotMigrated):
		return one(found(err.Error(), "all migrations of this version", "rocketflow migrate up"+s.flag()))
	case err != nil:
		return one(s.cannot(err))
	}
	return one(ok("all tables, columns and functions are there"))
}

// quantity is "1 thing", "2 things" or, at the end of counting, "10000 things or more".
func quantity(n int64, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case n >= maxCount:
		return fmt.Sprintf("%d %ss or more", n, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
