package rocketflowtest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

type parcelSent struct {
	ID string `json:"id"`
}

func (p parcelSent) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.sent", Subject: p.ID}
}

type parcelBilled struct {
	ID string `json:"id"`
}

func (p parcelBilled) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.billed", Subject: p.ID}
}

// TestJoinWithinAHandler calls, in a handler, a function that takes a pgx.Tx, begins a savepoint and joins it. What the
// function publishes follows the handler's transaction: if that rolls back, the event is never sent and AfterCommit is not
// called; if it commits, both happen at once.
func TestJoinWithinAHandler(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var box *outbox.Outbox
	var attempts, billed, after atomic.Int32
	bill := func(ctx context.Context, db pgx.Tx, id string) error {
		nested, err := db.Begin(ctx)
		if err != nil {
			return err
		}
		tx := box.Join(nested)
		tx.AfterCommit(func() { after.Add(1) })
		return errors.Join(tx.Publish(ctx, parcelBilled{id}), tx.Commit(ctx))
	}
	config := rocketflowfx.Config{Service: "parcels", Topics: []broker.Topic{{Name: "parcels", Queues: 4}}}
	s := env.Start(config, fx.Populate(&box), fx.Invoke(func(r *handlers.Router) {
		handlers.On(r, "billing", func(ctx context.Context, tx rocketflow.Tx, p parcelSent) error {
			attempts.Add(1)
			if err := bill(ctx, tx, p.ID); err != nil {
				return err
			}
			if p.ID == "free" {
				return handlers.Discard(nil)
			}
			return nil
		})
		handlers.On(r, "billing", func(context.Context, rocketflow.Tx, parcelBilled) error { billed.Add(1); return nil })
	}))
	s.Publish(parcelSent{"free"}, parcelSent{"paid"})
	env.Settle()
	if out := rocketflowtest.Events[parcelBilled](env); len(out) != 1 || out[0].ID != "paid" {
		t.Errorf("out are %v, want the paid one alone", out)
	}
	if attempts.Load() < 2 || billed.Load() != 1 || after.Load() != 1 {
		t.Errorf("%d attempts, %d handled, %d functions called after the commit: want 2, 1 and 1", attempts.Load(), billed.Load(), after.Load())
	}
}

// TestJoinedSavepointFollowsItsTransaction joins and releases a savepoint of an application's own transaction: its event is
// sent if, and only after, the application commits.
func TestJoinedSavepointFollowsItsTransaction(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var box *outbox.Outbox
	var after atomic.Int32
	config := rocketflowfx.Config{Service: "parcels", Topics: []broker.Topic{{Name: "parcels", Queues: 4}}}
	s := env.Start(config, fx.Populate(&box))
	ctx := t.Context()
	for id, commit := range map[string]bool{"rolled back": false, "committed": true} {
		owner, err := s.Pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		nested, err := owner.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tx := box.Join(nested)
		tx.AfterCommit(func() { after.Add(1) })
		if err := errors.Join(tx.Publish(ctx, parcelBilled{id}), tx.Commit(ctx)); err != nil {
			t.Fatal(err)
		}
		if out := rocketflowtest.Events[parcelBilled](env); len(out) > 0 && !commit {
			t.Errorf("out before the owner has decided: %v", out)
		}
		if commit {
			err = owner.Commit(ctx)
		} else {
			err = owner.Rollback(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	env.Settle()
	if out := rocketflowtest.Events[parcelBilled](env); len(out) != 1 || out[0].ID != "committed" {
		t.Errorf("out are %v, want the committed one alone", out)
	}
	if n := after.Load(); n != 0 {
		t.Errorf("%d functions were called, of a commit that no one observed", n)
	}
}
