package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// Transactions whose owner isn't the outbox. The ledger's row is written in the same part of the transaction as the
// event, so it tells whether that part committed.
const (
	joinedSavepoint       manner = "is joined in a savepoint, its owner commits"
	joinedSavepointUndone manner = "is joined in a savepoint, its owner rolls back"
	joinedPartUndone      manner = "is joined, its owner rolls back a savepoint around the first event, commits"
	joinedRolledBackTo    manner = "is joined, its owner rolls back to a savepoint before the first event by SQL, commits"
	joinedTwice           manner = "is joined twice, commits"
	joinedInside          manner = "has a savepoint that is joined, commits"
	joinedInsideUndone    manner = "has a savepoint that is joined, fails"
	rolledBackTo          manner = "rolls back to a savepoint before the first event by SQL, commits" // not joined, but the same in SQL
)

var joinManners = []manner{
	joined, joinedRaw, joinedSavepoint, joinedSavepointUndone, joinedPartUndone, joinedRolledBackTo, joinedTwice, joinedInside, joinedInsideUndone,
	rolledBackTo,
}

func (t transaction) joins() bool { return slices.Contains(joinManners, t.Manner) }

// join runs a transaction of joinManners.
func (p *process) join(ctx context.Context, t transaction) error {
	if t.Manner == joinedInside || t.Manner == joinedInsideUndone {
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := p.publishNested(ctx, tx, t.Notes...); err != nil || t.Manner == joinedInside {
				return err
			}
			return errOnPurpose
		})
	}
	if t.Manner == rolledBackTo {
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return p.rollBackTo(ctx, tx, tx, t) })
	}
	owner, err := p.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = owner.Rollback(context.WithoutCancel(ctx)) }() // nothing after a commit
	switch t.Manner {
	case joinedSavepoint:
		if err := p.publishNested(ctx, owner, t.Notes...); err != nil {
			return err
		}
		return owner.Commit(ctx)
	case joinedSavepointUndone:
		if err := p.publishNested(ctx, owner, t.Notes...); err != nil {
			return err
		}
		return errors.Join(errOnPurpose, owner.Rollback(ctx))
	}
	tx := p.box.Join(owner)
	switch t.Manner {
	case joinedPartUndone:
		err = pgx.BeginFunc(ctx, owner, func(pgx.Tx) error {
			if err := p.publishAll(ctx, tx, t.Notes[:1]); err != nil {
				return err
			}
			return errOnPurpose
		})
		if !errors.Is(err, errOnPurpose) {
			return fmt.Errorf("savepoint of the owner: %w", err)
		}
		err = p.publishAll(ctx, tx, t.Notes[1:])
	case joinedRolledBackTo:
		err = p.rollBackTo(ctx, owner, tx, t)
	case joinedTwice:
		if err = p.publishAll(ctx, p.box.Join(owner), t.Notes[:1]); err == nil {
			err = p.publishAll(ctx, tx, t.Notes[1:])
		}
	default: // joined, joinedRaw
		err = p.run(ctx, tx, t)
	}
	if err != nil {
		return err
	}
	if t.Manner == joinedRaw || t.Manner != joined && t.Raw {
		return owner.Commit(ctx)
	}
	return tx.Commit(ctx)
}

// rollBackTo publishes by tx, and has owner, which is the same transaction, roll the first event back by SQL.
func (p *process) rollBackTo(ctx context.Context, owner pgx.Tx, tx rocketflow.Tx, t transaction) error {
	if _, err := owner.Exec(ctx, "SAVEPOINT before"); err != nil {
		return err
	}
	if err := p.publishAll(ctx, tx, t.Notes[:1]); err != nil {
		return err
	}
	if _, err := owner.Exec(ctx, "ROLLBACK TO SAVEPOINT before"); err != nil {
		return err
	}
	return p.publishAll(ctx, tx, t.Notes[1:])
}

// publishNested publishes as a function does that gets a pgx.Tx and takes a savepoint of its own.
func (p *process) publishNested(ctx context.Context, owner pgx.Tx, notes ...note) error {
	nested, err := owner.Begin(ctx)
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	tx := p.box.Join(nested)
	if err := p.publishAll(ctx, tx, notes); err != nil {
		return errors.Join(err, nested.Rollback(context.WithoutCancel(ctx)))
	}
	return tx.Commit(ctx)
}

func (p *process) publishAll(ctx context.Context, tx rocketflow.Tx, notes []note) error {
	for _, n := range notes {
		if err := p.publish(ctx, tx, n); err != nil {
			return err
		}
	}
	return nil
}

// errAfterCommit is what a transaction that is committed fails with if an AfterCommit function was not called. Of a joined
// one it may not be known that it is committed: then none is called.
var errAfterCommit = errors.New("committed, and AfterCommit not called")

// wantAnnounced checks that AfterCommit was called for all that a committed transaction published.
func (p *process) wantAnnounced(t transaction) error {
	if t.joins() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range t.Notes {
		if !p.announced[n.Name] {
			return fmt.Errorf("%w: %s", errAfterCommit, n.Name)
		}
	}
	return nil
}

func (p *process) announce(event string) {
	p.mu.Lock()
	p.announced[event] = true
	p.mu.Unlock()
	p.hooks.announce(event)
}
