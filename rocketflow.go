// Package rocketflow is the vocabulary of a framework for event-driven workflows on Apache RocketMQ and PostgreSQL: the
// event, the transaction that publishes events, the errors that all parts share. The parts are
//
//   - outbox: events leave a Postgres transaction if and only if it commits;
//   - handlers: each event has its effect once, the events of an aggregate in order;
//   - timeout: alarms that are armed and disarmed in a transaction;
//   - saga: a handler that remembers;
//   - rocketmq: the broker;
//   - rocketflowfx: the same as modules for go.uber.org/fx.
package rocketflow

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Tx is a Postgres transaction that publishes. It is a pgx.Tx, so existing code and generated queries take it. So are its
// savepoints, which Begin returns as pgx.Tx.
//
// Commit returns nil once the transaction is committed, whatever the broker does. An error of it that matches
// ErrCommitUnknown means that nobody knows whether it is; any other, that it isn't. After the end of the transaction, or of
// the savepoint, all methods return pgx.ErrTxClosed.
//
// What a rollback takes back takes its events with it, also a rollback to a savepoint in SQL.
type Tx interface {
	pgx.Tx

	// Publish records events that become visible if and only if the transaction commits. Nothing is sent before Commit.
	// Events of one aggregate are delivered in the order of the commits, and within a transaction in that of the calls.
	// It refuses what could never be sent, with an error that names the field; the transaction remains usable then.
	Publish(ctx context.Context, events ...Payload) error

	// AfterCommit registers fn to be called once the transaction has committed, before Commit returns. fn must be quick:
	// it is for handing work over. It isn't called if the transaction, or the savepoint that it was registered in, rolls
	// back, if the outcome is unknown, or if the process dies: what must happen anyhow needs a row. Registered after the
	// end it isn't called either, and an error is logged. What it panics with is logged.
	AfterCommit(fn func())
}

// Transactor runs fn in one transaction and commits it if fn returns nil. *outbox.Outbox is one.
type Transactor interface {
	Within(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error
}

// HandlerFunc handles one event in a transaction. What it returns decides: nil commits; see package handlers for the
// errors that steer.
type HandlerFunc func(ctx context.Context, tx Tx, e Event) error

// Middleware wraps a handler.
type Middleware func(next HandlerFunc) HandlerFunc

// DefaultSchema is the Postgres schema that holds rocketflow's tables unless a Config names another.
const DefaultSchema = "rocketflow"
