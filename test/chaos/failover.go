package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// failover adds a last phase in which Postgres loses its last commits, as in a failover to a replica that was behind. Events of
// those commits that were sent are at the broker.
func (d *generator) failover() {
	whole, away := d.kindRNG.IntN(2) == 0, d.kindRNG.IntN(2) == 0
	d.add("all is quiet; the replica has everything up to here", func(p *execution) error { return p.snapshot() })
	if away {
		d.add("the consumers are killed", func(p *execution) error {
			for _, s := range p.w.slots[publishers:] {
				s.current().kill()
			}
			return nil
		})
	}
	lost := 2 + d.kindRNG.IntN(4)
	for i := range lost {
		t := d.extraTransaction(fmt.Sprintf("lost%d", i))
		t.Behavior = pick(d.kindRNG, commits, joinedRaw)
		d.addTransaction(t)
	}
	what := "with all that was handled since"
	if !whole {
		what = "of the publishers; consumers have another server and keep theirs"
	}
	d.add("all are killed, and Postgres fails over: the commits since are lost, "+what, func(p *execution) error { return p.failover(whole) })
	if d.kinds[deployFault] && d.kindRNG.IntN(2) == 0 {
		d.deploy(false)
	}
	for i := range 2 + d.kindRNG.IntN(3) {
		d.addTransaction(d.extraTransaction(fmt.Sprintf("after%d", i)))
	}
}

// publishersTables are the tables that a failover of only the publishers' server restores.
var publishersTables = []string{"outbox", "outbox_ack", "stream", "outbox_sweep", "outbox_retention", "published", "counter"}

// keptTables are the test's own tables, which no failover restores.
var keptTables = []string{"lost_commit", "opened", "no_rows", "commit_fails", "commit_waits"}

func (w *world) snapshotSchema() string { return pgx.Identifier{w.name + "_snapshot"}.Sanitize() }

// snapshot copies the tables when all is quiet.
func (p *execution) snapshot() error {
	if err := p.quiesce("", "nothing goes wrong"); err != nil {
		return err
	}
	p.failAgain()
	return p.w.try(p.ctx, func(ctx context.Context) error {
		return pgx.BeginTxFunc(ctx, p.w.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			snapshot := p.w.snapshotSchema()
			if _, err := tx.Exec(ctx, "DROP SCHEMA IF EXISTS "+snapshot+" CASCADE"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "CREATE SCHEMA "+snapshot); err != nil {
				return err
			}
			tables, err := p.w.tables(ctx, tx)
			for _, t := range tables {
				if err == nil {
					_, err = tx.Exec(ctx, fmt.Sprintf("CREATE TABLE %s.%s AS TABLE %s", snapshot, t, t))
				}
			}
			return err
		})
	})
}

// tables are the quoted names of the world's tables, without partitions.
func (w *world) tables(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, w.ledger.sql.Get("WorldTables"), w.name, keptTables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// failover kills all processes and restores the tables from the snapshot: all of them, or only the publishers'.
func (p *execution) failover(whole bool) error {
	for lock := range p.heldLocks {
		_ = p.release(lock)
	}
	for _, s := range p.w.slots {
		s.current().kill()
	}
	p.running.Wait()
	if err := p.w.awaitNoSessions(p.ctx); err != nil {
		return err
	}
	var lostCommits int64
	err := p.w.try(p.ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.w.pool, func(tx pgx.Tx) error {
			snapshot := p.w.snapshotSchema()
			tag, err := tx.Exec(ctx, strings.ReplaceAll(p.w.ledger.sql.Get("RecordLostCommits"), "{snapshot}", snapshot))
			if err != nil {
				return err
			}
			lostCommits = tag.RowsAffected()
			tables, err := p.w.tables(ctx, tx)
			if err != nil {
				return err
			}
			if !whole {
				tables = slices.DeleteFunc(tables, func(t string) bool { return !slices.Contains(publishersTables, strings.Trim(t, `"`)) })
			}
			if _, err := tx.Exec(ctx, "TRUNCATE "+strings.Join(tables, ", ")); err != nil {
				return err
			}
			for _, t := range tables {
				if _, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s OVERRIDING SYSTEM VALUE TABLE %s.%s", t, snapshot, t)); err != nil {
					return fmt.Errorf("restore %s: %w", t, err)
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if lostCommits > 0 {
		p.w.countFault(failoverFault)
	}
	return p.w.restartEnded(p.ctx)
}

// awaitNoSessions waits until Postgres has ended the sessions of all processes, which have been killed.
func (w *world) awaitNoSessions(ctx context.Context) error {
	for {
		var left int
		err := w.try(ctx, func(ctx context.Context) error {
			return w.pool.QueryRow(ctx, w.ledger.sql.Get("Sessions"), w.name).Scan(&left)
		})
		if err != nil || left == 0 {
			return err
		}
		time.Sleep(pollInterval)
	}
}
