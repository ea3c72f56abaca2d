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

	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var queriesSQL string

// patience is how long a migration stands before a table that is in use, with all that want the table behind it.
const patience = 3 * time.Second

// pause is how long it then lets them through.
const pause = time.Second

// migrator applies migrations to a schema.
type migrator struct {
	pool    *pgxpool.Pool
	schema  string
	waiting func(Holder)
	sql     queries.Set

	missing int // how many files the schema lacks
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

// pending counts what the schema lacks.
func (m *migrator) pending(ctx context.Context) error {
	applied, err := m.applied(ctx, m.pool)
	m.missing = len(lacking(applied))
	if m.missing == 0 && len(applied) > 0 {
		begun, e := m.begun(ctx, m.pool)
		if e == nil && !begun {
			m.missing++ // to write down what an older version applied
		}
		err = errors.Join(err, e)
	}
	return err
}

func lacking(applied []Status) []file {
	return slices.DeleteFunc(slices.Clone(files), func(f file) bool {
		return slices.ContainsFunc(applied, func(s Status) bool { return s.Version == f.version })
	})
}

// locked runs fn in a transaction that has the schema to itself, and again as long as a table that fn changes is in use.
// It needs nothing of the session: all settings end with the transaction.
func (m *migrator) locked(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
	w := &watch{pool: m.pool, sql: m.sql, notify: m.waiting}
	for {
		// A snapshot from before the lock would not show what its holder did.
		err := pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			var pid int32
			if err := tx.QueryRow(ctx, m.sql.Get("NoTimeouts")).Scan(&pid); err != nil {
				return err
			}
			defer w.look(ctx, pid)()
			if _, err := tx.Exec(ctx, m.sql.Get("Lock"), "rocketflow migrations "+m.schema); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, m.sql.Get("Patience"), patience.String()); err != nil {
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
			case <-time.After(pause):
				continue
			}
		}
		return w.explain(ctx, err)
	}
}

// transient tells whether the error comes of others that use the tables, or make the schema at the same time.
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

// next applies the oldest migration that the schema lacks.
func (m *migrator) next(ctx context.Context, tx pgx.Tx) error {
	if err := m.prepare(ctx, tx); err != nil {
		return err
	}
	applied, err := m.applied(ctx, tx)
	if err != nil {
		return err
	}
	pending := lacking(applied)
	m.missing = len(pending)
	if len(pending) == 0 {
		return nil
	}
	f := pending[0]
	if err := m.run(ctx, tx, f.up); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if _, err := tx.Exec(ctx, m.sql.Get("Applied"), f.version, f.name); err != nil {
		return fmt.Errorf("write down %s: %w", f.name, err)
	}
	m.missing--
	return nil
}

// takeBack undoes the newest migration.
func (m *migrator) takeBack(ctx context.Context, tx pgx.Tx) error {
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
		return fmt.Errorf("%s is of a newer version of rocketflow, which must take it back", newest.Name)
	}
	if err := m.run(ctx, tx, files[i].down); err != nil {
		return fmt.Errorf("%s: %w", newest.Name, err)
	}
	statement := m.sql.Get("TakenBack")
	if len(applied) == 1 {
		_, err = tx.Exec(ctx, m.sql.Get("DropVersions"))
	} else {
		_, err = tx.Exec(ctx, statement, newest.Version)
	}
	return err
}

// run executes the statements of a file, with the schema as the search path.
func (m *migrator) run(ctx context.Context, tx pgx.Tx, statements string) error {
	// Without arguments it is a simple query, which may contain several statements.
	_, err := tx.Exec(ctx, "SET LOCAL search_path = "+quote(m.schema)+", pg_temp;\n"+fill(statements, m.schema))
	return err
}

// prepare makes the schema and the table of versions where they are missing.
func (m *migrator) prepare(ctx context.Context, tx pgx.Tx) error {
	var schema bool
	if err := tx.QueryRow(ctx, m.sql.Get("SchemaExists"), m.schema).Scan(&schema); err != nil {
		return err
	}
	if !schema { // CREATE SCHEMA IF NOT EXISTS wants the right to create one even if it exists
		if _, err := tx.Exec(ctx, m.sql.Get("CreateSchema")); err != nil {
			return fmt.Errorf("create schema: %w", err)
		}
	}
	begun, err := m.begun(ctx, tx)
	if err != nil || begun {
		return err
	}
	older, err := m.applied(ctx, tx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, m.sql.Get("CreateVersions")); err != nil {
		return fmt.Errorf("create table of versions: %w", err)
	}
	for _, s := range older {
		if _, err := tx.Exec(ctx, m.sql.Get("Applied"), s.Version, s.Name); err != nil {
			return fmt.Errorf("write down %s: %w", s.Name, err)
		}
	}
	return nil
}

// begun tells whether the schema has a table of versions.
func (m *migrator) begun(ctx context.Context, db querier) (begun bool, err error) {
	err = db.QueryRow(ctx, m.sql.Get("VersionsExist"), m.schema).Scan(&begun)
	return begun, err
}

// applied lists the schema's migrations, oldest first.
func (m *migrator) applied(ctx context.Context, db querier) ([]Status, error) {
	begun, err := m.begun(ctx, db)
	if err != nil {
		return nil, err
	}
	if !begun {
		return m.older(ctx, db)
	}
	rows, err := db.Query(ctx, m.sql.Get("Versions"))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Status])
}

// columns each came with a migration that was applied before there was a table of versions.
var columns = []struct {
	version       int64
	table, column string
}{
	{1, "outbox", "xid"}, {2, "consumer_topic", "born_at"}, {3, "timeout", "epoch"}, {4, "saga_history", "revision"},
	{5, "outbox_retention", "stream_floor"}, {6, "outbox_sweep", "recount_at"},
}

// older finds by their columns the migrations of a schema that has no table of versions.
func (m *migrator) older(ctx context.Context, db querier) ([]Status, error) {
	has, err := read(ctx, db, m.sql, m.schema)
	if err != nil {
		return nil, err
	}
	var found []Status
	for _, c := range columns {
		i := slices.IndexFunc(files, func(f file) bool { return f.version == c.version })
		if i < 0 || !has[c.table+"."+c.column] {
			break
		}
		found = append(found, Status{Version: c.version, Name: files[i].name, AppliedAt: time.Now()})
	}
	return found, nil
}
