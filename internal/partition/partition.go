// Package partition makes and drops the daily partitions of tables whose key is, or begins with, a UUIDv7, which contains
// the day. Rows of a day without a partition go to the table's default partition, so an insert never fails for the lack of
// one.
//
//	made, err := partition.Ensure(ctx, pool, table, now, 7)  // today's and those of the next 7 days
//	days, err := partition.Days(ctx, pool, table)
//	dropped, err := partition.Drop(ctx, pool, days[:1], nil) // the oldest
//
// The SQL functions make_partition and drop_partition of rocketflow's migrations do the work, with the rights of the tables'
// owner.
package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// lockTimeout bounds how long making or dropping a partition may block other transactions: it waits for those that use the
// table, and later ones queue behind it.
const lockTimeout = "500ms"

// turnTimeout bounds the wait for another process that makes or drops partitions of the schema. That one needs a few
// lockTimeouts at most, unless its machine or network failed: then its lock ends when Postgres notices, and waiting processes
// give up and retry later, so that they don't hold a connection each.
const turnTimeout = "5s"

// idleTimeout ends the transaction of a process that froze, or lost its network, between two statements, because its locks
// block all others.
const idleTimeout = "10s"

// Table is a partitioned table.
type Table struct {
	Schema, Name string
}

func (t Table) quoted() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

// Day is one partition of a table.
type Day struct {
	Table Table
	Name  string
	Start time.Time // UTC; the day ends 24 h later
}

// Day returns the partition of the day of an instant, whether it exists or not.
func (t Table) Day(at time.Time) Day {
	start := at.UTC().Truncate(24 * time.Hour)
	return Day{Table: t, Name: t.Name + start.Format("_p20060102"), Start: start}
}

// Quoted returns the partition's quoted name with its schema, for statements.
func (d Day) Quoted() string { return pgx.Identifier{d.Table.Schema, d.Name}.Sanitize() }

// Bounds returns the lowest UUIDv7 of the day and of the next day.
func (d Day) Bounds() (from, to string) { return bound(d.Start), bound(d.Start.AddDate(0, 0, 1)) }

// bound returns the lowest UUIDv7 of an instant.
func bound(at time.Time) string {
	var id uuid.UUID
	ms := uint64(at.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
}

// Ensure makes the missing partitions from the day of now until ahead days later, and returns the names of those it made. A
// partition can't be made if the default partition has rows of its day; the others are made all the same. Any number of
// processes may call Ensure at the same time.
func Ensure(ctx context.Context, pool *pgxpool.Pool, t Table, now time.Time, ahead int) (made []string, err error) {
	days, err := Days(ctx, pool, t)
	if err != nil {
		return nil, err
	}
	exists := map[string]bool{}
	for _, d := range days {
		exists[d.Name] = true
	}
	for i := range ahead + 1 {
		d := t.Day(now.AddDate(0, 0, i))
		if exists[d.Name] {
			continue
		}
		ok, e := create(ctx, pool, d)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("make partition %s: %w", d.Name, e))
		}
		if ok {
			made = append(made, d.Name)
		}
	}
	return made, err
}

// create calls the schema's function, so that the partition belongs to the owner of the schema's tables.
func create(ctx context.Context, pool *pgxpool.Pool, d Day) (bool, error) {
	made := false
	err := exclusively(ctx, pool, d.Table, func(tx pgx.Tx) error {
		from, to := d.Bounds()
		statement := "SELECT " + pgx.Identifier{d.Table.Schema, "make_partition"}.Sanitize() + "($1::text, $2::text, $3::text::uuid, $4::text::uuid)"
		return tx.QueryRow(ctx, statement, d.Table.Name, d.Name, from, to).Scan(&made)
	})
	return made && err == nil, err
}

// Days returns the partitions of a table, oldest first, without the default one.
func Days(ctx context.Context, pool *pgxpool.Pool, t Table) ([]Day, error) {
	rows, err := lazytx.On(pool).Query(ctx, `
		SELECT c.relname::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = pg_catalog.to_regclass($1::text)::oid ORDER BY c.relname`, t.quoted())
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", t.Name, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", t.Name, err)
	}
	var days []Day
	for _, name := range names {
		if start, err := time.Parse("_p20060102", strings.TrimPrefix(name, t.Name)); err == nil {
			days = append(days, Day{Table: t, Name: name, Start: start})
		}
	}
	return days, nil
}

// Drop drops partitions, all or none, unless keep returns true. keep, if not nil, is called in the same transaction while the
// tables are locked for all others, and may read them briefly. dropped is also false if another process has dropped them
// before.
func Drop(ctx context.Context, pool *pgxpool.Pool, days []Day, keep func(ctx context.Context, tx pgx.Tx) (bool, error)) (dropped bool, err error) {
	err = exclusively(ctx, pool, days[0].Table, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1::text) IS NOT NULL", days[0].Quoted()).Scan(&exists); err != nil || !exists {
			return err
		}
		// The parents first, and in the caller's order: queries lock them in this order too, so there is no deadlock.
		for _, d := range days {
			if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+d.Table.quoted()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
				return err
			}
		}
		if keep != nil {
			if k, err := keep(ctx, tx); err != nil || k {
				return err
			}
		}
		for _, d := range days {
			statement := "SELECT " + pgx.Identifier{d.Table.Schema, "drop_partition"}.Sanitize() + "($1::text, $2::text)"
			if _, err := tx.Exec(ctx, statement, d.Table.Name, d.Name); err != nil {
				return err
			}
		}
		dropped = true
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("drop partition %s: %w", days[0].Name, err)
	}
	return dropped, nil
}

// ErrBusy is returned when the table was in use for too long. Retry later.
var ErrBusy = errors.New("table is in use")

// exclusively runs fn in a transaction that is the only one to make or drop partitions of the schema.
func exclusively(ctx context.Context, pool *pgxpool.Pool, t Table, fn func(pgx.Tx) error) error {
	// Read committed: with a snapshot from before the lock, keep would not see rows that came meanwhile.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	err := pgx.BeginTxFunc(ctx, pool, options, func(tx pgx.Tx) error {
		// The lock belongs to the transaction, not to the session, so that a pooler in transaction mode works.
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+turnTimeout+"'; SET LOCAL idle_in_transaction_session_timeout = '"+idleTimeout+"'"); err != nil {
			return err
		}
		lock := "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text, 0::bigint))"
		if _, err := tx.Exec(ctx, lock, "rocketflow partitions "+t.Schema); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'"); err != nil {
			return err
		}
		return fn(tx)
	})
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "55P03" { // lock_not_available
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
