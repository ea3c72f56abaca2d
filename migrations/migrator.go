package migrations

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var queriesSQL string

// lockTimeout is how long a migration waits for a table that is in use. Others that want the table wait behind it meanwhile.
const lockTimeout = 3 * time.Second

// retryPause is the pause before the next attempt, in which the others can use the table.
const retryPause = time.Second

// migrator applies migrations to a schema.
type migrator struct {
	pool    *pgxpool.Pool
	schema  string
	waiting func(Holder)
	sql     queries.Set

	missing int // the number of pending migrations
}

func newMigrator(pool *pgxpool.Pool, schema string, waiting func(Holder)) *migrator {
	if waiting == nil {
		waiting = func(Holder) {}
	}
	return &migrator{pool: pool, schema: schema, waiting: waiting, sql: queries.Parse(queriesSQL, schema)}
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// countPending sets m.missing.
func (m *migrator) countPending(ctx context.Context) error {
	applied, err := m.applied(ctx, lazytx.On(m.pool))
	m.missing = len(pending(applied))
	if m.missing == 0 && len(applied) > 0 {
		exists, e := m.hasVersions(ctx, lazytx.On(m.pool))
		if e == nil && !exists {
			m.missing++ // the table of versions has to be created from those of an older version
		}
		err = errors.Join(err, e)
	}
	return err
}

// pending returns the migrations that aren't applied, oldest first.
func pending(applied []Status) []file {
	return slices.DeleteFunc(slices.Clone(files), func(f file) bool {
		return slices.ContainsFunc(applied, func(s Status) bool { return s.Version == f.version })
	})
}

// locked runs fn in a transaction that holds the schema's lock, and tries again as long as a table that fn changes is in use.
// All settings end with the transaction, so no state of the session is needed.
func (m *migrator) locked(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
	w := &waitWatcher{pool: m.pool, sql: m.sql, notify: m.waiting}
	for {
		// Read committed: a snapshot from before the lock would not show what its previous holder did.
		err := pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			var pid int32
			if err := tx.QueryRow(ctx, m.sql.Get("NoTimeouts")).Scan(&pid); err != nil {
				return err
			}
			defer w.watch(ctx, pid)()
			if _, err := tx.Exec(ctx, m.sql.Get("Lock"), "rocketflow migrations "+m.schema); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, m.sql.Get("LockTimeout"), lockTimeout.String()); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, m.sql.Get("SearchPath")); err != nil {
				return err
			}
			return fn(ctx, tx)
		})
		if transient(err) {
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(retryPause):
				continue
			}
		}
		return w.explain(ctx, err)
	}
}

// transient reports whether err comes from others that use the tables or create the schema at the same time.
func transient(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "55P03", "40P01", "42P06": // lock_not_available, deadlock_detected, duplicate_schema
		return true
	case "23505": // unique_violation
		return e.ConstraintName == "pg_namespace_nspname_index"
	}
	return false
}

// applyNext applies the oldest pending migration.
func (m *migrator) applyNext(ctx context.Context, tx pgx.Tx) error {
	if err := m.prepare(ctx, tx); err != nil {
		return err
	}
	applied, err := m.applied(ctx, tx)
	if err != nil {
		return err
	}
	left := pending(applied)
	m.missing = len(left)
	if len(left) == 0 {
		return nil
	}
	f := left[0]
	if err := m.run(ctx, tx, f.up); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if _, err := tx.Exec(ctx, m.sql.Get("Applied"), f.version, f.name); err != nil {
		return fmt.Errorf("record %s: %w", f.name, err)
	}
	m.missing--
	return nil
}

// revert reverts the newest migration.
func (m *migrator) revert(ctx context.Context, tx pgx.Tx) error {
	applied, err := m.applied(ctx, tx)
	if err != nil {
		return err
	}
	if len(applied) == 0 {
		return errors.New("no migration is applied")
	}
	if err := m.prepare(ctx, tx); err != nil {
		return err
	}
	newest := applied[len(applied)-1]
	i := slices.IndexFunc(files, func(f file) bool { return f.version == newest.Version })
	if i < 0 {
		return fmt.Errorf("%s is of a newer version of rocketflow: revert it with that version", newest.Name)
	}
	if err := m.run(ctx, tx, files[i].down); err != nil {
		return fmt.Errorf("%s: %w", newest.Name, err)
	}
	if len(applied) == 1 {
		_, err = tx.Exec(ctx, m.sql.Get("DropVersions"))
	} else {
		_, err = tx.Exec(ctx, m.sql.Get("Reverted"), newest.Version)
	}
	return err
}

// run executes the statements of a file, with the schema as the search path.
func (m *migrator) run(ctx context.Context, tx pgx.Tx, statements string) error {
	// Without arguments it is a simple query, which may contain several statements.
	_, err := tx.Exec(ctx, "SET LOCAL search_path = "+quote(m.schema)+", pg_temp;\n"+fill(statements, m.schema))
	return err
}

// prepare creates the schema and the table of versions if they are missing.
func (m *migrator) prepare(ctx context.Context, tx pgx.Tx) error {
	var schema bool
	if err := tx.QueryRow(ctx, m.sql.Get("SchemaExists"), m.schema).Scan(&schema); err != nil {
		return err
	}
	if !schema { // CREATE SCHEMA IF NOT EXISTS needs the right to create schemas also if the schema exists
		if _, err := tx.Exec(ctx, m.sql.Get("CreateSchema")); err != nil {
			return fmt.Errorf("create schema: %w", err)
		}
	}
	exists, err := m.hasVersions(ctx, tx)
	if err != nil || exists {
		return err
	}
	older, err := m.applied(ctx, tx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, m.sql.Get("CreateVersions")); err != nil {
		return fmt.Errorf("create the table of versions: %w", err)
	}
	for _, s := range older {
		if _, err := tx.Exec(ctx, m.sql.Get("Applied"), s.Version, s.Name); err != nil {
			return fmt.Errorf("record %s: %w", s.Name, err)
		}
	}
	return nil
}

// hasVersions reports whether the schema has a table of versions.
func (m *migrator) hasVersions(ctx context.Context, db querier) (has bool, err error) {
	err = db.QueryRow(ctx, m.sql.Get("VersionsExist"), m.schema).Scan(&has)
	return has, err
}

// applied returns the migrations that were applied to the schema, oldest first.
func (m *migrator) applied(ctx context.Context, db querier) ([]Status, error) {
	exists, err := m.hasVersions(ctx, db)
	if err != nil {
		return nil, err
	}
	if !exists {
		return m.appliedByOlderVersion(ctx, db)
	}
	rows, err := db.Query(ctx, m.sql.Get("Versions"))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Status])
}

// markers names, for each migration that could be applied before there was a table of versions, a column that it created.
var markers = []struct {
	version       int64
	table, column string
}{
	{1, "outbox", "xid"}, {2, "consumer_topic", "born_at"}, {3, "timeout", "epoch"}, {4, "saga_history", "revision"},
	{5, "outbox_retention", "stream_floor"}, {6, "outbox_sweep", "recount_at"},
}

// appliedByOlderVersion returns the migrations of a schema without a table of versions, by the columns that it has.
func (m *migrator) appliedByOlderVersion(ctx context.Context, db querier) ([]Status, error) {
	has, err := readObjects(ctx, db, m.sql, m.schema)
	if err != nil {
		return nil, err
	}
	var found []Status
	for _, c := range markers {
		i := slices.IndexFunc(files, func(f file) bool { return f.version == c.version })
		if i < 0 || !has[c.table+"."+c.column] {
			break
		}
		found = append(found, Status{Version: c.version, Name: files[i].name, AppliedAt: time.Now()})
	}
	return found, nil
}
