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

// ledger holds what was published and handled, written in the transactions that did it.
type ledger struct{ sql queries.Set }

func openLedger(schema string) ledger { return ledger{queries.Parse(ledgerSQL, schema)} }

// publish publishes an event and writes that down.
func (l ledger) publish(ctx context.Context, tx rocketflow.Tx, n note) error {
	var place *int64
	if n.Stream != "" && n.Counted {
		if err := tx.QueryRow(ctx, l.sql.Get("Count"), n.Stream).Scan(&place); err != nil {
			return fmt.Errorf("count: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, l.sql.Get("Publish"), n.Name, int64(n.Schedule), n.Topic, n.Stream, place); err != nil {
		return fmt.Errorf("write down what is published: %w", err)
	}
	return tx.Publish(ctx, n)
}

func (l ledger) handle(ctx context.Context, tx pgx.Tx, consumer string, n note, sequence int64) error {
	if _, err := tx.Exec(ctx, l.sql.Get("Handle"), consumer, n.Name, int64(n.Schedule), n.Stream, sequence); err != nil {
		return fmt.Errorf("write down what is handled: %w", err)
	}
	return nil
}

// rest is what isn't done yet.
type rest struct{ unhandled, owed, parked, published int64 }

func (r rest) none() bool { return r.unhandled+r.owed+r.parked == 0 }

func (r rest) String() string {
	return fmt.Sprintf("%d of %d not handled, %d owed, %d parked", r.unhandled, r.published, r.owed, r.parked)
}

// left counts what a schedule has left to do, but for stream if that isn't empty.
func (l ledger) left(ctx context.Context, pool *pgxpool.Pool, seed uint64, all bool, stream string) (r rest, err error) {
	err = pool.QueryRow(ctx, l.sql.Get("Left"), int64(seed), all, stream).Scan(&r.unhandled, &r.owed, &r.parked, &r.published)
	return r, err
}

// verdict is what is wrong with a schedule. Ghosts, which nobody published, count as doubled.
type verdict struct {
	lost, doubled, misordered []string
	other                     []string // that it doesn't come to rest, dead letters
}

func (v verdict) ok() bool { return len(v.lost)+len(v.doubled)+len(v.misordered)+len(v.other) == 0 }

// lines tells all in words.
func (v verdict) lines() []string {
	var all []string
	for _, part := range []struct {
		word  string
		found []string
	}{{"lost", v.lost}, {"doubled", v.doubled}, {"misordered", v.misordered}, {"", v.other}} {
		for _, f := range part.found {
			if part.word != "" {
				f = part.word + ": " + f
			}
			all = append(all, f)
		}
	}
	return all
}

// judge looks at one schedule, or at all if seed is nil.
func (l ledger) judge(ctx context.Context, pool *pgxpool.Pool, seed *uint64) (v verdict, err error) {
	var schedule *int64
	if seed != nil {
		s := int64(*seed)
		schedule = &s
	}
	for _, q := range []struct {
		name string
		note string
		to   *[]string
	}{
		{"Lost", "", &v.lost}, {"Doubled", "", &v.doubled}, {"Ghosts", " (its transaction didn't commit)", &v.doubled},
		{"Misordered", "", &v.misordered}, {"Dead", " is a dead letter", &v.other},
	} {
		rows, err := pool.Query(ctx, l.sql.Get(q.name), schedule)
		if err != nil {
			return v, fmt.Errorf("judge: %s: %w", q.name, err)
		}
		var event, consumer string
		_, err = pgx.ForEachRow(rows, []any{&event, &consumer}, func() error {
			*q.to = append(*q.to, fmt.Sprintf("%s at %s%s", event, consumer, q.note))
			return nil
		})
		if err != nil {
			return v, fmt.Errorf("judge: %s: %w", q.name, err)
		}
	}
	return v, nil
}

// judgeAnnounced looks at how often AfterCommit was called for each event of a schedule: at most once, and if its
// transaction committed. Events of other schedules are left out: a ghost may be handled when its schedule has been judged.
func (l ledger) judgeAnnounced(ctx context.Context, pool *pgxpool.Pool, seed uint64, announced map[string]int) (wrong []string, err error) {
	rows, err := pool.Query(ctx, l.sql.Get("Published"), int64(seed))
	if err != nil {
		return nil, fmt.Errorf("judge: Published: %w", err)
	}
	published, lost := map[string]bool{}, map[string]bool{}
	var event string
	var ghost bool
	_, err = pgx.ForEachRow(rows, []any{&event, &ghost}, func() error {
		published[event] = true
		lost[event] = lost[event] || ghost
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("judge: Published: %w", err)
	}
	for _, e := range slices.Sorted(maps.Keys(announced)) {
		switch n := announced[e]; {
		case !strings.HasPrefix(e, fmt.Sprintf("s%d-", seed)):
		case !published[e]:
			wrong = append(wrong, e+": AfterCommit was called, and its transaction didn't commit")
		case n > 1 && !lost[e]:
			wrong = append(wrong, fmt.Sprintf("%s: AfterCommit was called %d times", e, n))
		}
	}
	return wrong, nil
}
