package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// failover adds the last phase of a schedule in which Postgres loses its last commits: as a failover does to a replica
// that was behind. What was sent of them is at the broker.
func (d *drawing) failover() {
	whole, away := d.extra.IntN(2) == 0, d.extra.IntN(2) == 0
	d.add("all comes to rest; the replica is as far as this", func(p *play) error { return p.snapshot() })
	if away {
		d.add("the consumers are killed", func(p *play) error {
			for _, s := range p.w.slots[publishers:] {
				s.member().kill()
			}
			return nil
		})
	}
	lost := 2 + d.extra.IntN(4)
	for i := range lost {
		t := d.extraTransaction(fmt.Sprintf("lost%d", i))
		t.Manner = pick(d.extra, commits, joinedRaw)
		d.addTransaction(t)
	}
	what := "with all that was handled since"
	if !whole {
		what = "of the publishers; consumers have another server and keep theirs"
	}
	d.add("all are killed, and Postgres fails over: the commits since are lost, "+what, func(p *play) error { return p.failover(whole) })
	if d.kinds[deployFault] && d.extra.IntN(2) == 0 {
		d.deploy(false)
	}
	for i := range 2 + d.extra.IntN(3) {
		d.addTransaction(d.extraTransaction(fmt.Sprintf("after%d", i)))
	}
}

// publishersTables are those that a failover of the publishers' server alone takes back.
var publishersTables = []string{"outbox", "outbox_ack", "stream", "outbox_sweep", "outbox_retention", "published", "counter"}

// keptTables are the driver's own, which no failover takes back.
var keptTables = []string{"ghost", "opened", "nobody", "doomed", "slow"}

func (w *world) snapshotSchema() string { return pgx.Identifier{w.name + "_snapshot"}.Sanitize() }

// snapshot copies the tables as they are when all is at rest.
func (p *play) snapshot() error {
	if err := p.comeToRest("", "nothing goes wrong"); err != nil {
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

// failover kills all processes and takes the tables back to the snapshot: all of them, or the publishers' alone.
func (p *play) failover(whole bool) error {
	for lock := range p.locks {
		_ = p.release(lock)
	}
	for _, s := range p.w.slots {
		s.member().kill()
	}
	p.running.Wait()
	if err := p.w.awaitNobody(p.ctx); err != nil {
		return err
	}
	var ghosts int64
	err := p.w.try(p.ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.w.pool, func(tx pgx.Tx) error {
			snapshot := p.w.snapshotSchema()
			tag, err := tx.Exec(ctx, strings.ReplaceAll(p.w.ledger.sql.Get("NoteGhosts"), "{snapshot}", snapshot))
			if err != nil {
				return err
			}
			ghosts = tag.RowsAffected()
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
	if ghosts > 0 {
		p.w.took(failoverFault)
	}
	return p.w.revive(p.ctx)
}

// awaitNobody waits until Postgres has ended the sessions of all processes, which are dead.
func (w *world) awaitNobody(ctx context.Context) error {
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
