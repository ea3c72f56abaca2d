package doctor

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/migrations"
)

const codeMigrated = "postgres-migrated"

// oldestVersion is the oldest major version of PostgreSQL that is supported, see docs/compatibility.md.
const oldestVersion = 14

var postgresChecks = []check{
	{
		Check: Check{Code: "postgres-version", Group: Postgres, Severity: Critical, Pre: true,
			Title: "The server is PostgreSQL 14 or newer",
			About: `Migrations and statements are written for PostgreSQL 14 and newer, and tested with 14 to 18.

Mend: upgrade the server.`},
		database: postgresVersion,
	},
	{
		Check: Check{Code: "postgres-primary", Group: Postgres, Severity: Critical, Pre: true,
			Title: "The database is a primary that takes writes",
			About: `A replica takes no writes, so nothing can be published or handled on it, and a check-back that reads a replica can miss a row that was committed.

Mend: let DATABASE_URL name the primary. With several hosts in it, add target_session_attrs=read-write.`},
		database: postgresPrimary,
	},
	{
		Check: Check{Code: "postgres-durability", Group: Postgres, Severity: Critical, Pre: true,
			Title: "A commit survives a crash of the server's machine",
			About: `With fsync or full_page_writes off, a crash of the machine can lose committed transactions or corrupt the database. Events that were announced are then events of transactions that never were. synchronous_commit=off is no finding: transactions that publish set it to local at least.

Mend: switch both on, and reload the configuration.`},
		database: postgresDurability,
	},
	{
		Check: Check{Code: "postgres-standby", Group: Postgres, Severity: Critical, Pre: true,
			Title: "Commits don't wait for a replica that isn't there",
			About: `synchronous_standby_names makes each commit wait for replicas: for one of the names, or for as many as FIRST or ANY says. If fewer are connected, every transaction hangs in COMMIT.

Mend: start the replica, or take its name out of synchronous_standby_names.`},
		database: postgresStandby,
	},
	{
		Check: Check{Code: "postgres-connections", Group: Postgres, Severity: Warning, Pre: true,
			Title: "The server has room for one more process of the service",
			About: `A rolling deploy starts a new process before the old one ends. If the server, the database or the role has no room for the connections of its pool (max_connections, CONNECTION LIMIT), it can't start, or parts of it wait for a connection.

The size of the pool is that of DATABASE_URL: pool_max_conns, or 24.

Mend: raise the limit that is named, use smaller pools, or a pooler.`},
		database: postgresConnections,
	},
	{
		Check: Check{Code: "postgres-pooler", Group: Postgres, Severity: Critical, Pre: true,
			Title: "A pooler in transaction mode knows prepared statements, or the service uses none",
			About: `pgx prepares statements unless it is told not to. Behind a pooler in transaction mode that doesn't follow them (PgBouncer before 1.21, or with max_prepared_statements = 0), statements fail with "prepared statement does not exist" as soon as two connections are used.

The check compares the process that a connection says that it belongs to with the one that answers, and looks whether a second connection gets the first one's process.

Mend: add default_query_exec_mode=exec to DATABASE_URL, or set max_prepared_statements in PgBouncer 1.21 or newer.`},
		database: postgresPooler,
	},
	{
		Check: Check{Code: "postgres-long-transaction", Group: Postgres, Severity: Warning,
			Title: "No transaction is open for longer than half messages are kept",
			About: `An open transaction delays the watermark of the sweep, so that the sweep reads more rows at each pass, and it keeps vacuum from removing dead rows of streams and positions, which makes each commit slower. A publishing transaction that is older than outbox.Config.MaxTransaction gets rollback for its half messages: its events come by the sweep, later.

Transactions of all databases of the server count. The role must be a member of pg_read_all_stats to see those of other roles.

Mend: find out what the session does. pg_terminate_backend ends it.`},
		database: postgresLongTransaction,
	},
	{
		Check: Check{Code: "postgres-idle-transaction", Group: Postgres, Severity: Warning,
			Title: "No transaction is open without doing anything",
			About: `A session that is idle in a transaction usually means a program that waits for something else, such as an HTTP request, or that forgot to commit. It holds its locks: others that publish to the same streams, or handle events of the same aggregates, wait for it.

Mend: end the session, and set idle_in_transaction_session_timeout for the role so that Postgres does it.`},
		database: postgresIdleTransaction,
	},
	{
		Check: Check{Code: "postgres-prepared-transaction", Group: Postgres, Severity: Warning,
			Title: "No prepared transaction is left over",
			About: `A transaction that was prepared for a two-phase commit stays open, with its locks, over restarts of the server, until somebody commits or rolls it back. It stops the watermark of the sweep.

Mend: find out which transaction manager it belongs to; then commit it or roll it back.`},
		database: postgresPreparedTransaction,
	},
	{
		Check: Check{Code: "postgres-create", Group: Postgres, Severity: Critical, Pre: true,
			Title: "The role may create the schema, or the schema exists",
			About: `rocketflow migrate up creates the schema if it doesn't exist, which needs CREATE on the database. If it exists, the migrating role needs CREATE on the schema.

Mend: grant the right to the role that migrates, or create the schema for it: see docs/postgres.md.`},
		database: postgresCreate,
	},
	{
		Check: Check{Code: codeMigrated, Group: Postgres, Severity: Critical,
			Title: "The schema has the tables that this version of rocketflow needs",
			About: `A service of this version doesn't start on the schema. What a newer version has added is no finding.

Mend: run rocketflow migrate up of this version, with a role that owns the schema.`},
		catalog: true, schema: postgresMigrated,
	},
	{
		Check: Check{Code: "postgres-rights", Group: Postgres, Severity: Critical,
			Title: "The role of the service has the rights that it needs",
			About: `A service reads and writes all of rocketflow's tables, and calls make_partition and drop_partition. A right that is missing shows only when it is needed: retention that can't delete, a dead letter that can't be parked.

The role is --role, or that of the connection: examine with the service's own DATABASE_URL or name its role.

Mend: run the GRANT as the owner of the schema. ALTER DEFAULT PRIVILEGES, as in docs/postgres.md, covers tables of later migrations.`},
		catalog: true, schema: postgresRights,
	},
	{
		Check: Check{Code: "postgres-pool", Group: Postgres, Severity: Warning,
			Title: "The pool has a connection for each lane and for the background work",
			About: `A service uses at one time up to one connection for each lane of each consumer and 6 for its background work. With a smaller pool, slow handlers use all connections, and acknowledgements, the sweep and check-backs wait for them.

The size of the pool is that of DATABASE_URL; consumers are those that the schema has a row of.

Mend: set pool_max_conns in DATABASE_URL, and mind postgres-connections.`},
		schema: postgresPool,
	},
	{
		Check: Check{Code: "postgres-autovacuum", Group: Postgres, Severity: Warning,
			Title: "Autovacuum works on rocketflow's tables",
			About: `Each event changes a row of stream, and each handled one a row of position. Without autovacuum these tables grow with each event, and all lookups get slower.

Mend: switch autovacuum on, for the server and the table.`},
		catalog: true, schema: postgresAutovacuum,
	},
	{
		Check: Check{Code: "postgres-partitions", Group: Postgres, Severity: Critical,
			Title: "The daily partitions of today and tomorrow exist",
			About: `Events and inbox rows are stored by day, so that retention drops a whole partition instead of deleting rows. A running service makes the partitions of the next days. Rows of a day without one go to the default partition: nothing fails, but retention must delete them one by one, and the partition of that day can't be made any more while they are there.

Mend: start the service, whose log says why it can't make partitions; often EXECUTE on make_partition is missing. The SQL makes one by hand.`},
		schema: postgresPartitions,
	},
	{
		Check: Check{Code: "postgres-default-partition", Group: Postgres, Severity: Warning,
			Title: "The default partitions hold no rows of days",
			About: `Rows in a default partition belong to a day whose partition was missing when they were written. Partitions of that day can't be made while they are there. They are deleted by age, row by row. Rows of inbox_default whose ids are no UUIDv7, of events of other producers, are no finding.

Mend: mend postgres-partitions first. Retention removes the rows when they are old enough.`},
		schema: postgresDefaultPartition,
	},
}

func postgresVersion(_ context.Context, d *database) []Result {
	version := fmt.Sprintf("PostgreSQL %d.%d", d.version/10000, d.version%10000)
	if d.version/10000 < d.oldestVersion() {
		return one(found(version, fmt.Sprintf("PostgreSQL %d or newer", d.oldestVersion()), "# upgrade the server: pg_upgrade, or a new server and a dump"))
	}
	return one(ok("%s", version))
}

// oldestVersion returns the oldest version that is supported; tests raise it.
func (d *database) oldestVersion() int { return max(oldestVersion, d.x.config.oldestVersion) }

func postgresPrimary(_ context.Context, d *database) []Result {
	if d.replica {
		return one(found("the server is a replica: it takes no writes", "the primary", "# in DATABASE_URL, with all hosts:\ntarget_session_attrs=read-write"))
	}
	return one(ok("the server is a primary"))
}

func postgresDurability(ctx context.Context, d *database) []Result {
	var fsync, pages bool
	if err := d.row(ctx, d.sql, "Durability", nil, &fsync, &pages); err != nil {
		return one(d.cannot(err))
	}
	var off, mend []string
	for name, on := range map[string]bool{"fsync": fsync, "full_page_writes": pages} {
		if !on {
			off = append(off, name)
			mend = append(mend, "ALTER SYSTEM SET "+name+" = on;")
		}
	}
	if len(off) > 0 {
		return one(found(sorted(off, ", ")+" off", "on", sorted(mend, "\n")+"\nSELECT pg_catalog.pg_reload_conf();"))
	}
	return one(ok("fsync and full_page_writes are on"))
}

func postgresStandby(ctx context.Context, d *database) []Result {
	var names string
	var connected int64
	if err := d.row(ctx, d.sql, "Standby", nil, &names, &connected); err != nil {
		return one(d.cannot(err))
	}
	needed := neededStandbys(names)
	switch {
	case needed == 0:
		return one(ok("commits wait for no replica"))
	case connected >= needed:
		return one(ok("%s connected, commits wait for %d", quantity(connected, "synchronous replica"), needed))
	case !d.stats:
		return one(d.needsStats("whether replicas are connected"))
	}
	observed := fmt.Sprintf("synchronous_standby_names is %q, and %s connected: commits hang", names, quantity(connected, "such replica"))
	return one(found(observed, quantity(needed, "connected synchronous replica"),
		"# start the replica, or:\nALTER SYSTEM SET synchronous_standby_names = '';\nSELECT pg_catalog.pg_reload_conf();"))
}

// standbyCount finds the number in synchronous_standby_names, as in FIRST 2 (a, b), ANY 2 (a, b) and 2 (a, b).
var standbyCount = regexp.MustCompile(`(?i)^\s*(?:(?:FIRST|ANY)\s*)?(\d+)\s*\(`)

// neededStandbys returns for how many replicas commits wait by synchronous_standby_names. A list of names alone is one of them.
func neededStandbys(names string) int64 {
	if strings.TrimSpace(names) == "" {
		return 0
	}
	if match := standbyCount.FindStringSubmatch(names); match != nil {
		if n, err := strconv.ParseInt(match[1], 10, 32); err == nil {
			return n
		}
	}
	return 1
}

// needsStats returns the answer of a check that must see other roles' sessions.
func (d *database) needsStats(what string) Result {
	r := unknown("a right is missing: role %s can't see %s", d.role, what)
	r.Mend = "GRANT pg_read_all_stats TO " + pgx.Identifier{d.role}.Sanitize() + ";"
	return r
}

func postgresConnections(ctx context.Context, d *database) []Result {
	type limit struct {
		What      string
		Max, Used int64
	}
	limits, err := list[limit](ctx, d, d.sql, "Connections", d.serviceRole())
	if err != nil {
		return one(d.cannot(err))
	}
	needed := int64(max(d.PoolSize, 1))
	var tightest *limit
	for i, l := range limits {
		if tightest == nil || l.Max-l.Used < tightest.Max-tightest.Used {
			tightest = &limits[i]
		}
	}
	if tightest == nil {
		return one(unknown("role %s does not exist", d.serviceRole()))
	}
	observed := fmt.Sprintf("%d of %d connections of the %s are used", tightest.Used, tightest.Max, tightest.What)
	if tightest.Max-tightest.Used >= needed {
		return one(ok("%s", observed))
	}
	mend := fmt.Sprintf("ALTER SYSTEM SET max_connections = %d; -- takes a restart", tightest.Max+max(needed, tightest.Max/2))
	switch tightest.What {
	case "role":
		mend = fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d;", pgx.Identifier{d.serviceRole()}.Sanitize(), tightest.Used+2*needed)
	case "database":
		mend = fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d;", pgx.Identifier{d.Pool.Config().ConnConfig.Database}.Sanitize(), tightest.Used+2*needed)
	}
	return one(found(observed, fmt.Sprintf("room for %d more, the pool of one process", needed), mend))
}

// serviceRole returns the role whose rights and limits count.
func (d *database) serviceRole() string {
	if d.Role != "" {
		return d.Role
	}
	return d.role
}

func postgresLongTransaction(_ context.Context, d *database) []Result {
	longest := d.x.config.Expect.MaxTransaction
	return d.transactions("no transaction is open for long", func(s session) (string, bool) {
		return fmt.Sprintf("a transaction is open for %s: %s", about(seconds(s.Open)), s), seconds(s.Open) > longest
	}, fmt.Sprintf("at most %s: outbox.Config.MaxTransaction", longest), "")
}

func postgresIdleTransaction(_ context.Context, d *database) []Result {
	longest := d.x.config.Expect.MaxIdle
	timeout := fmt.Sprintf("\nALTER ROLE %s SET idle_in_transaction_session_timeout = '%ds';", pgx.Identifier{d.serviceRole()}.Sanitize(), max(int(longest.Seconds()), 1))
	return d.transactions("no transaction is idle for long", func(s session) (string, bool) {
		return fmt.Sprintf("a transaction is idle for %s: %s", about(seconds(s.Since)), s),
			strings.HasPrefix(s.Name, "idle in transaction") && seconds(s.Since) > longest
	}, fmt.Sprintf("at most %s without a statement", longest), timeout)
}

// transactions judges each open transaction.
func (d *database) transactions(fine string, judge func(session) (string, bool), needed, mend string) (results []Result) {
	const most = 5
	if d.sessionsErr != nil {
		return one(d.cannot(d.sessionsErr))
	}
	for _, s := range d.sessions {
		if observed, bad := judge(s); bad && len(results) < most {
			results = append(results, found(observed, needed, fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(%d);%s", s.PID, mend)))
		}
	}
	switch {
	case len(results) > 0:
		return results
	case d.hidden > 0:
		return one(d.needsStats("the transactions of " + quantity(d.hidden, "session") + " of other roles"))
	}
	return one(ok("%s", fine))
}

func postgresPreparedTransaction(ctx context.Context, d *database) []Result {
	type prepared struct {
		GID, Owner, Database string
		Age                  float64
	}
	all, err := list[prepared](ctx, d, d.sql, "PreparedTransactions", maxList)
	if err != nil {
		return one(d.cannot(err))
	}
	var results []Result
	for _, p := range all {
		if seconds(p.Age) > d.x.config.Expect.MaxIdle {
			results = append(results, found(
				fmt.Sprintf("transaction %q of role %s in database %s is prepared for %s", p.GID, p.Owner, p.Database, about(seconds(p.Age))),
				fmt.Sprintf("at most %s until it is committed or rolled back", d.x.config.Expect.MaxIdle),
				"ROLLBACK PREPARED '"+strings.ReplaceAll(p.GID, "'", "''")+"'; -- or COMMIT PREPARED, in its database"))
		}
	}
	if len(results) == 0 {
		return one(ok("%s prepared", quantity(int64(len(all)), "transaction")))
	}
	return results
}

func postgresCreate(ctx context.Context, d *database) (results []Result) {
	names := d.Schemas
	if len(names) == 0 {
		names = []string{rocketflow.DefaultSchema}
		if len(d.schemas) > 0 {
			return one(ok("%s with rocketflow's tables", quantity(int64(len(d.schemas)), "schema")))
		}
	}
	for _, name := range names {
		var exists, inDatabase, inSchema bool
		if err := d.row(ctx, d.sql, "MayCreate", []any{name}, &exists, &inDatabase, &inSchema); err != nil {
			return one(d.cannot(err))
		}
		role := pgx.Identifier{d.role}.Sanitize()
		switch {
		case exists && (inSchema || !d.x.config.Pre):
			results = append(results, ok("schema %s exists", name))
		case exists:
			results = append(results, found(fmt.Sprintf("role %s may not create tables in schema %s", d.role, name), "CREATE on the schema, for the role that migrates",
				fmt.Sprintf("GRANT CREATE ON SCHEMA %s TO %s;", pgx.Identifier{name}.Sanitize(), role)))
		case inDatabase:
			results = append(results, ok("role %s may create schema %s", d.role, name))
		default:
			results = append(results, found(fmt.Sprintf("schema %s doesn't exist, and role %s may not create it", name, d.role), "the schema, or CREATE on the database, for the role that migrates",
				fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %s;", pgx.Identifier{name}.Sanitize(), role)))
		}
	}
	return results
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

func postgresRights(ctx context.Context, s *schema) []Result {
	if errors.Is(s.err, rocketflow.ErrNotMigrated) {
		return one(unknown("%s", s.blocked()))
	}
	role := s.database.serviceRole()
	type right struct{ Privilege, Object string }
	missing, err := list[right](ctx, s.database, s.sql, "MissingRights", s.name, role, migrations.Tables(), maxList,
		s.database.x.config.Expect.AuditRetention < 0)
	if err != nil {
		return one(s.cannot(err))
	}
	if len(missing) == 0 {
		return one(ok("role %s has all rights", role))
	}
	var names []string
	for _, m := range missing {
		names = append(names, m.Privilege+" on "+m.Object)
	}
	schema, quotedRole := pgx.Identifier{s.name}.Sanitize(), pgx.Identifier{role}.Sanitize()
	mend := fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;\nGRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s;\nGRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %[1]s TO %[2]s;", schema, quotedRole)
	return one(found(fmt.Sprintf("role %s lacks %s", role, some(names, 8)), "SELECT, INSERT, UPDATE and DELETE on the tables, EXECUTE on the functions", mend))
}

func postgresPool(_ context.Context, s *schema) []Result {
	const background = 6
	size, needed := s.database.PoolSize, len(s.consumers)*s.database.x.config.Expect.Lanes+background
	switch {
	case size == 0:
		return one(unknown("the size of the service's pool is not known: set Database.PoolSize"))
	case size >= needed:
		return one(ok("the pool has %d connections for %s", size, quantity(int64(len(s.consumers)), "consumer")))
	}
	return one(found(fmt.Sprintf("the pool has %d connections for %s", size, quantity(int64(len(s.consumers)), "consumer")),
		fmt.Sprintf("%d: %d for each consumer's lanes, %d for background work, and those of the application", needed, s.database.x.config.Expect.Lanes, background),
		fmt.Sprintf("# in DATABASE_URL:\npool_max_conns=%d", needed+10)))
}

const autovacuumOn = "(autovacuum_enabled = on)"

func postgresAutovacuum(ctx context.Context, s *schema) []Result {
	var on bool
	if err := s.database.row(ctx, s.sql, "Autovacuum", nil, &on); err != nil {
		return one(s.cannot(err))
	}
	if !on {
		return one(found("autovacuum or track_counts is off", "on", "ALTER SYSTEM SET autovacuum = on;\nALTER SYSTEM SET track_counts = on;\nSELECT pg_catalog.pg_reload_conf();"))
	}
	without, err := list[string](ctx, s.database, s.sql, "WithoutAutovacuum", s.name, maxList)
	switch {
	case err != nil:
		return one(s.cannot(err))
	case len(without) == 0:
		return one(ok("autovacuum is on"))
	}
	var mend []string
	for _, table := range without {
		mend = append(mend, "ALTER TABLE "+pgx.Identifier{s.name, table}.Sanitize()+" SET "+autovacuumOn+";")
	}
	return one(found("autovacuum is off for "+some(without, 8), "on", strings.Join(mend, "\n")))
}

// partitioned lists the tables with daily partitions.
var partitioned = []string{"outbox", "outbox_ack", "inbox", "timeout_history"}

func postgresPartitions(ctx context.Context, s *schema) []Result {
	d := s.database
	now, err := d.now(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	existing, err := list[string](ctx, d, s.sql, "Partitions", s.name, partitioned)
	if err != nil {
		return one(s.cannot(err))
	}
	has := map[string]bool{}
	for _, name := range existing {
		has[name] = true
	}
	var missing, mend []string
	for _, table := range partitioned {
		if table == "inbox" && len(s.consumers) == 0 { // nobody makes them, and nothing is written there
			continue
		}
		for ahead := range 2 {
			day := partition.Table{Schema: s.name, Name: table}.Day(now.AddDate(0, 0, ahead))
			if has[day.Name] {
				continue
			}
			from, to := day.Bounds()
			missing = append(missing, day.Name)
			mend = append(mend, fmt.Sprintf("SELECT %s('%s', '%s', '%s', '%s');", pgx.Identifier{s.name, "make_partition"}.Sanitize(), table, day.Name, from, to))
		}
	}
	switch {
	case len(missing) == 0:
		return one(ok("the partitions of today and tomorrow exist"))
	case s.source == "":
		return one(ok("no service has started on the schema yet, which makes the partitions"))
	}
	return one(found("missing: "+some(missing, 8), "the partitions of today and tomorrow", strings.Join(mend, "\n")))
}

func postgresDefaultPartition(ctx context.Context, s *schema) (results []Result) {
	tables, err := list[string](ctx, s.database, s.sql, "DefaultPartitions", maxCount)
	if err != nil {
		return one(s.cannot(err))
	}
	if len(tables) == 0 {
		return one(ok("the default partitions hold no rows of days"))
	}
	return one(found("rows in "+strings.Join(tables, ", "), "none: a partition for each day",
		"# see postgres-partitions; retention deletes the rows by age. What is there:\nSELECT count(*) FROM "+pgx.Identifier{s.name, tables[0]}.Sanitize()+";"))
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
