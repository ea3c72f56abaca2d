package main

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed ledger.sql
var ledgerSQL string

// ledger records what was published and handled, in the transactions that did it. It checks the invariants.
type ledger struct{ sql queries.Set }

func openLedger(schema string) ledger { return ledger{queries.Parse(ledgerSQL, schema)} }

// publish publishes an event and records it.
func (l ledger) publish(ctx context.Context, tx rocketflow.Tx, n testEvent) error {
	if n.Retired {
		if _, err := tx.Exec(ctx, l.sql.Get("PublishRetired"), n.Name, int64(n.Schedule)); err != nil {
			return fmt.Errorf("record publication: %w", err)
		}
		return tx.Publish(ctx, n)
	}
	var place *int64
	if n.Stream != "" && n.Counted {
		if err := tx.QueryRow(ctx, l.sql.Get("Count"), n.Stream).Scan(&place); err != nil {
			return fmt.Errorf("count: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, l.sql.Get("Publish"), n.Name, int64(n.Schedule), n.Topic, n.Stream, place); err != nil {
		return fmt.Errorf("record publication: %w", err)
	}
	return tx.Publish(ctx, n)
}

func (l ledger) handle(ctx context.Context, tx pgx.Tx, consumer string, n testEvent, sequence int64) error {
	if _, err := tx.Exec(ctx, l.sql.Get("Handle"), consumer, n.Name, int64(n.Schedule), n.Stream, sequence); err != nil {
		return fmt.Errorf("record handling: %w", err)
	}
	return nil
}

// remaining counts what is not done yet.
type remaining struct{ unhandled, owed, parked, published int64 }

func (r remaining) empty() bool { return r.unhandled+r.owed+r.parked == 0 }

func (r remaining) String() string {
	return fmt.Sprintf("%d of %d not handled, %d owed, %d parked", r.unhandled, r.published, r.owed, r.parked)
}

// countRemaining counts what a schedule has left to do, except in stream unless that is empty. With all, owed and parked
// events are counted even while some are not handled.
func (l ledger) countRemaining(ctx context.Context, pool *pgxpool.Pool, seed uint64, all bool, stream string) (r remaining, err error) {
	err = pool.QueryRow(ctx, l.sql.Get("Remaining"), int64(seed), all, stream).Scan(&r.unhandled, &r.owed, &r.parked, &r.published)
	return r, err
}

// verdict holds the violations of the invariants by a schedule. Events of transactions that did not commit count as duplicated.
type verdict struct {
	lost, duplicated, misordered []string
	other                        []string // not quiet in time, dead letters, and others
}

func (v verdict) ok() bool { return len(v.lost)+len(v.duplicated)+len(v.misordered)+len(v.other) == 0 }

// lines describes each violation.
func (v verdict) lines() []string {
	var all []string
	for _, part := range []struct {
		word  string
		found []string
	}{{"lost", v.lost}, {"doubled", v.duplicated}, {"misordered", v.misordered}, {"", v.other}} {
		for _, f := range part.found {
			if part.word != "" {
				f = part.word + ": " + f
			}
			all = append(all, f)
		}
	}
	return all
}

// judge checks the invariants for one schedule, or for all if seed is nil.
func (l ledger) judge(ctx context.Context, pool *pgxpool.Pool, seed *uint64) (v verdict, err error) {
	var schedule *int64
	if seed != nil {
		s := int64(*seed)
		schedule = &s
	}
	for _, q := range []struct {
		name   string
		suffix string
		to     *[]string
	}{
		{"Lost", "", &v.lost}, {"Duplicated", "", &v.duplicated}, {"Uncommitted", " (its transaction didn't commit)", &v.duplicated},
		{"Misordered", "", &v.misordered}, {"DeadLetters", " is a dead letter", &v.other},
	} {
		rows, err := pool.Query(ctx, l.sql.Get(q.name), schedule)
		if err != nil {
			return v, fmt.Errorf("judge: %s: %w", q.name, err)
		}
		var event, consumer string
		_, err = pgx.ForEachRow(rows, []any{&event, &consumer}, func() error {
			*q.to = append(*q.to, fmt.Sprintf("%s at %s%s", event, consumer, q.suffix))
			return nil
		})
		if err != nil {
			return v, fmt.Errorf("judge: %s: %w", q.name, err)
		}
	}
	return v, nil
}

// judgeAfterCommit checks how often AfterCommit was called for each event of a schedule: at most once, and only if its
// transaction committed. It ignores events of other schedules: an event of a commit that a failover lost may be handled after
// its schedule was checked.
func (l ledger) judgeAfterCommit(ctx context.Context, pool *pgxpool.Pool, seed uint64, afterCommitted map[string]int) (violations []string, err error) {
	rows, err := pool.Query(ctx, l.sql.Get("Published"), int64(seed))
	if err != nil {
		return nil, fmt.Errorf("judge: Published: %w", err)
	}
	published, lost := map[string]bool{}, map[string]bool{}
	var event string
	var lostCommit bool
	_, err = pgx.ForEachRow(rows, []any{&event, &lostCommit}, func() error {
		published[event] = true
		lost[event] = lost[event] || lostCommit
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("judge: Published: %w", err)
	}
	for _, e := range slices.Sorted(maps.Keys(afterCommitted)) {
		switch n := afterCommitted[e]; {
		case !strings.HasPrefix(e, fmt.Sprintf("s%d-", seed)):
		case !published[e]:
			violations = append(violations, e+": AfterCommit was called, and its transaction didn't commit")
		case n > 1 && !lost[e]:
			violations = append(violations, fmt.Sprintf("%s: AfterCommit was called %d times", e, n))
		}
	}
	return violations, nil
}
