package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// Behaviors of transactions that the application owns and the outbox joins. The ledger's row is written in the same part of
// the transaction as the event, so it shows whether that part committed.
const (
	joinedSavepoint           behavior = "is joined in a savepoint, its owner commits"
	joinedSavepointRolledBack behavior = "is joined in a savepoint, its owner rolls back"
	joinedPartRolledBack      behavior = "is joined, its owner rolls back a savepoint around the first event, commits"
	joinedRolledBackTo        behavior = "is joined, its owner rolls back to a savepoint before the first event by SQL, commits"
	joinedTwice               behavior = "is joined twice, commits"
	joinedInside              behavior = "has a savepoint that is joined, commits"
	joinedInsideFails         behavior = "has a savepoint that is joined, fails"
	rolledBackTo              behavior = "rolls back to a savepoint before the first event by SQL, commits" // not joined, but savepoints by SQL, too
)

var joinedBehaviors = []behavior{
	joined, joinedRaw, joinedSavepoint, joinedSavepointRolledBack, joinedPartRolledBack, joinedRolledBackTo, joinedTwice, joinedInside, joinedInsideFails,
	rolledBackTo,
}

func (t transaction) joins() bool { return slices.Contains(joinedBehaviors, t.Behavior) }

// join runs a transaction of joinedBehaviors.
func (p *process) join(ctx context.Context, t transaction) error {
	if t.Behavior == joinedInside || t.Behavior == joinedInsideFails {
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := p.publishNested(ctx, tx, t.Events...); err != nil || t.Behavior == joinedInside {
				return err
			}
			return errOnPurpose
		})
	}
	if t.Behavior == rolledBackTo {
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return p.rollBackTo(ctx, tx, tx, t) })
	}
	owner, err := p.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = owner.Rollback(context.WithoutCancel(ctx)) }() // does nothing after a commit
	switch t.Behavior {
	case joinedSavepoint:
		if err := p.publishNested(ctx, owner, t.Events...); err != nil {
			return err
		}
		return owner.Commit(ctx)
	case joinedSavepointRolledBack:
		if err := p.publishNested(ctx, owner, t.Events...); err != nil {
			return err
		}
		return errors.Join(errOnPurpose, owner.Rollback(ctx))
	}
	tx := p.box.Join(owner)
	switch t.Behavior {
	case joinedPartRolledBack:
		err = pgx.BeginFunc(ctx, owner, func(pgx.Tx) error {
			if err := p.publishAll(ctx, tx, t.Events[:1]); err != nil {
				return err
			}
			return errOnPurpose
		})
		if !errors.Is(err, errOnPurpose) {
			return fmt.Errorf("savepoint of the owner: %w", err)
		}
		err = p.publishAll(ctx, tx, t.Events[1:])
	case joinedRolledBackTo:
		err = p.rollBackTo(ctx, owner, tx, t)
	case joinedTwice:
		if err = p.publishAll(ctx, p.box.Join(owner), t.Events[:1]); err == nil {
			err = p.publishAll(ctx, tx, t.Events[1:])
		}
	default: // joined, joinedRaw
		err = p.run(ctx, tx, t)
	}
	if err != nil {
		return err
	}
	if t.Behavior == joinedRaw || t.Behavior != joined && t.Raw {
		return owner.Commit(ctx)
	}
	return tx.Commit(ctx)
}

// rollBackTo publishes by tx and rolls the first event back by SQL on owner, which is the same transaction.
func (p *process) rollBackTo(ctx context.Context, owner pgx.Tx, tx rocketflow.Tx, t transaction) error {
	if _, err := owner.Exec(ctx, "SAVEPOINT before"); err != nil {
		return err
	}
	if err := p.publishAll(ctx, tx, t.Events[:1]); err != nil {
		return err
	}
	if _, err := owner.Exec(ctx, "ROLLBACK TO SAVEPOINT before"); err != nil {
		return err
	}
	return p.publishAll(ctx, tx, t.Events[1:])
}

// publishNested publishes in a joined savepoint of owner.
func (p *process) publishNested(ctx context.Context, owner pgx.Tx, events ...testEvent) error {
	nested, err := owner.Begin(ctx)
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	tx := p.box.Join(nested)
	if err := p.publishAll(ctx, tx, events); err != nil {
		return errors.Join(err, nested.Rollback(context.WithoutCancel(ctx)))
	}
	return tx.Commit(ctx)
}

func (p *process) publishAll(ctx context.Context, tx rocketflow.Tx, events []testEvent) error {
	for _, n := range events {
		if err := p.publish(ctx, tx, n); err != nil {
			return err
		}
	}
	return nil
}

// errAfterCommit is returned for a committed transaction whose AfterCommit functions were not all called. Joined transactions
// are not checked: their outcome may be unknown, and then none is called.
var errAfterCommit = errors.New("committed, and AfterCommit not called")

// checkAfterCommit checks that AfterCommit was called for each event of a committed transaction.
func (p *process) checkAfterCommit(t transaction) error {
	if t.joins() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range t.Events {
		if !p.afterCommitted[n.Name] {
			return fmt.Errorf("%w: %s", errAfterCommit, n.Name)
		}
	}
	return nil
}

func (p *process) recordAfterCommit(event string) {
	p.mu.Lock()
	p.afterCommitted[event] = true
	p.mu.Unlock()
	p.hooks.recordAfterCommit(event)
}
