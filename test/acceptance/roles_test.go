package acceptance

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// documented returns the statements of docs/postgres.md under a mark, for these roles and this schema.
func documented(t *testing.T, mark, owner, service, schema string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)<!-- test: " + mark + " -->\n```sql\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/postgres.md has no statements %q", mark)
	}
	filled := strings.NewReplacer("rocketflow_owner", owner, "rocketflow_service", service, "SCHEMA rocketflow", "SCHEMA "+schema).Replace(string(found[1]))
	var statements []string
	for s := range strings.SplitSeq(filled, ";\n") {
		if s = strings.TrimSpace(s); s != "" && !strings.HasPrefix(s, "CREATE ROLE") {
			statements = append(statements, s)
		}
	}
	return statements
}

// TestTheDocumentedGrantsSuffice runs a service as a role that has the grants of docs/postgres.md and no others; an owner
// migrates.
func TestTheDocumentedGrantsSuffice(t *testing.T) {
	t.Parallel()
	for _, existing := range []bool{false, true} {
		t.Run(map[bool]string{false: "new schema", true: "existing schema"}[existing], func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			w := rocketflowtest.New(t)
			owner, service := testdb.Role(t), testdb.Role(t)
			f := newFlow(t, w, func(schema string) *pgxpool.Pool {
				testdb.Exec(t, documented(t, "create", owner, service, schema)...)
				t.Cleanup(func() {
					if err := pgschema.Drop(ctx, testdb.URL(t), schema); err != nil {
						t.Error(err)
					}
				})
				config, err := pgxpool.ParseConfig(w.DatabaseURL())
				if err != nil {
					t.Fatal(err)
				}
				// What the test adds: the schema of its clock.
				clock, _, _ := strings.Cut(config.ConnConfig.RuntimeParams["search_path"], ",")
				testdb.Exec(t, "GRANT USAGE ON SCHEMA "+clock+" TO "+owner+", "+service)
				as := func(role string) *pgxpool.Pool {
					config := config.Copy()
					config.ConnConfig.User, config.ConnConfig.Password, config.MaxConns = role, role, 12
					pool, err := pgxpool.NewWithConfig(ctx, config)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(pool.Close)
					return pool
				}
				pool := as(owner)
				grant := func(mark string) {
					for _, s := range documented(t, mark, owner, service, schema) {
						if _, err := pool.Exec(ctx, s); err != nil {
							t.Fatalf("%s: %v", s, err)
						}
					}
				}
				if !existing {
					grant("grant")
				}
				if err := migrations.Up(ctx, pool, schema); err != nil {
					t.Fatal(err)
				}
				if existing {
					grant("grant")
					grant("grant existing")
				}
				return as(service)
			})
			f.run()
			rows, err := f.s.Pool.Query(ctx, `SELECT c.relname || ' of ' || pg_get_userbyid(c.relowner) FROM pg_class c
				WHERE c.relnamespace = to_regnamespace($1) AND pg_get_userbyid(c.relowner) <> $2`, f.s.Schema, owner)
			if err != nil {
				t.Fatal(err)
			}
			if others, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(others) > 0 {
				t.Errorf("not the owner's: %v (%v)", others, err)
			}
			for _, denied := range []string{
				"CREATE TABLE " + f.s.Schema + ".t (n int)",
				"DROP TABLE " + f.s.Schema + ".outbox",
				"SELECT " + f.s.Schema + ".make_partition('position', 'position_p20200101', gen_random_uuid(), gen_random_uuid())",
				"SELECT " + f.s.Schema + ".make_partition('outbox', 'x', gen_random_uuid(), gen_random_uuid())",
				"SELECT " + f.s.Schema + ".drop_partition('outbox', 'outbox_default')",
				"SELECT " + f.s.Schema + ".drop_partition('outbo', 'outbox_default')",
				"SELECT " + f.s.Schema + ".drop_partition('outbox', 'outbox_ack_default')",
			} {
				if _, err := f.s.Pool.Exec(ctx, denied); err == nil {
					t.Errorf("the service's role may: %s", denied)
				}
			}
		})
	}
}

// TestRolesWithoutGrantsCannotMakePartitions checks that a role without rights in the schema can't make partitions there.
func TestRolesWithoutGrantsCannotMakePartitions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	stranger := testdb.Role(t)
	testdb.ExecIn(t, pool.Config().ConnString(), "GRANT USAGE ON SCHEMA "+schema+" TO "+stranger)
	_, err := testdb.As(t, pool, stranger).Exec(ctx, "SELECT "+schema+".drop_partition('outbox', 'outbox_p20200101')")
	if err == nil || !strings.Contains(err.Error(), "permission denied for function drop_partition") {
		t.Errorf("got %v, want that it is denied", err)
	}
}
