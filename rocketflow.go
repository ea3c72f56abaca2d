// Package rocketflow is the vocabulary of a framework for event-driven workflows on Apache RocketMQ and PostgreSQL. It
// holds what the other packages share: the event, the transaction that publishes events, the handler, and the errors that
// callers match.
//
// An event is a value that says where it belongs:
//
//	type OrderPlaced struct {
//		OrderID string `json:"order_id"`
//	}
//
//	func (p OrderPlaced) EventMeta() rocketflow.Meta {
//		return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
//	}
//
// It is published in a transaction, and it is sent if and only if the transaction commits:
//
//	err := transactor.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
//		if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
//			return err
//		}
//		return tx.Publish(ctx, OrderPlaced{OrderID: id})
//	})
//
// Begin with package app, which assembles the parts:
//
//   - outbox publishes events with Postgres transactions.
//   - handlers runs functions for events: each event once, the events of an aggregate in order.
//   - timeout fires events at a given time, unless a transaction disarms them before.
//   - saga runs state machines that are moved by events and deadlines.
//   - rocketmq connects to the broker; broker is the interface that it implements.
//   - operate lists and repairs what waits for a person.
//   - rocketflowfx provides the parts to applications that use go.uber.org/fx.
//   - rocketflowtest runs services in a test; rocketmqtest is the broker that it embeds.
package rocketflow

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Tx is a Postgres transaction that can publish events. It is a pgx.Tx, so existing code and generated queries accept it.
// Its savepoints, which Begin returns as pgx.Tx, are a Tx, too.
//
// Commit returns nil once Postgres has committed, whether or not the broker can be reached. An error that matches
// ErrCommitUnknown means that the outcome is unknown: Postgres' response was lost. Any other error means that the transaction
// was rolled back. After the end of a transaction or savepoint all its methods return pgx.ErrTxClosed.
//
// Postgres ends a transaction that conflicts with another one by a deadlock or, above the isolation level read committed, by a
// serialization failure. Any method may return that error, Publish and Commit as well as a query: a *pgconn.PgError whose Code
// is 40P01 or 40001. Run the whole transaction again.
//
// A rollback discards the events that were published since its beginning. That includes ROLLBACK TO SAVEPOINT in SQL.
//
// Like a pgx.Tx, a Tx must not be used by several goroutines at once.
type Tx interface {
	pgx.Tx

	// Publish adds events to the transaction. They are sent after the commit, and only then. The events of one aggregate
	// (Meta.Subject) are delivered in the order of the commits, and within a transaction in the order of the calls.
	//
	// An event that can't be published (see Meta and the limits, such as MaxTopic) is refused with a *FieldError, and
	// ErrBackpressure means that too many events wait for the broker. In both cases nothing was added and the transaction can
	// still be used.
	Publish(ctx context.Context, events ...Payload) error

	// AfterCommit registers fn to be called after Postgres has committed and before Commit returns. Use it to hand over work
	// to a goroutine; fn must be quick. It is not called if the transaction, or the savepoint in which it was registered, is
	// rolled back, if the outcome is unknown, or if the process ends: work that must not be lost needs a row or an event.
	// A panic of fn is logged. If the transaction has ended already, fn is not called and an error is logged.
	AfterCommit(fn func())
}

// Transactor runs functions in transactions that can publish. *outbox.Outbox implements it.
type Transactor interface {
	// Within runs fn in a transaction, commits it if fn returns nil, and rolls it back otherwise. It returns fn's error or
	// that of the commit, see Tx. It doesn't run fn again after a conflict with another transaction.
	Within(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error
}

// HandlerFunc handles an event within a transaction. If it returns nil, the transaction is committed, and with it the
// record that the event was handled. If it returns an error, the transaction is rolled back, and the error decides what
// happens to the event: see package handlers.
type HandlerFunc func(ctx context.Context, tx Tx, e Event) error

// Middleware returns a handler that runs next, with something before, after or instead of it.
type Middleware func(next HandlerFunc) HandlerFunc

// DefaultSchema is the Postgres schema of rocketflow's tables unless a Config names another. A schema belongs to one
// service.
const DefaultSchema = "rocketflow"
