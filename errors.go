package rocketflow

import (
	"errors"
	"fmt"
	"time"
)

// Errors that several parts return. Match them with errors.Is.
var (
	// ErrUndecodable means that the body of an event is not what its handler expects. A retry doesn't help.
	ErrUndecodable = errors.New("undecodable event")

	// ErrBackpressure means that too many events wait for the broker: publish later. See BackpressureError.
	ErrBackpressure = errors.New("outbox is full")

	// ErrStale is returned by a handler to say that its event has become irrelevant. The handler's changes are rolled back,
	// and the event counts as handled.
	ErrStale = errors.New("stale event")

	// ErrCommitUnknown means that it is unknown whether a transaction committed, because Postgres' response to COMMIT was
	// lost. Its events are sent if and only if it did. Read what the transaction would have written before you run it again,
	// or write the transaction such that it can run twice.
	ErrCommitUnknown = errors.New("it is not known whether the transaction committed")

	// ErrNotMigrated means that rocketflow's tables are missing or older than the program. Run `rocketflow migrate up`.
	ErrNotMigrated = errors.New("database schema is not migrated: run `rocketflow migrate up`")
)

// SchemaOwnedError is returned by Start if the schema of rocketflow's tables belongs to another service. Two services can't
// share a schema: retention, sweeps, timeouts and sagas of one would change the other's rows.
type SchemaOwnedError struct {
	Schema string // the schema of rocketflow's tables
	Owner  string // the source of the service that uses it
	Source string // the source of the service that was refused
}

// Error says how to choose another schema, or to take this one over.
func (e *SchemaOwnedError) Error() string {
	return fmt.Sprintf("schema %q belongs to service %q and can't be used by %q: set Schema to one of its own and run `rocketflow migrate up --schema NAME`, "+
		"or, if %[2]q was renamed to %[3]q, run `rocketflow migrate owner --schema %[1]s --set %[3]s`", e.Schema, e.Owner, e.Source)
}

// BackpressureError is returned by Tx.Publish when too many events wait for the broker. It matches ErrBackpressure. Nothing
// was added to the transaction.
type BackpressureError struct {
	Backlog int64         // the number of owed events
	Oldest  time.Duration // the age of the oldest of them

	// Topic is set if the broker rejects the events of this topic, and only these are refused. Backlog and Oldest are about
	// this topic then.
	Topic  string
	Reason string // why the broker rejects them
}

// Error returns the size and the age of the backlog.
func (e *BackpressureError) Error() string {
	if e.Topic != "" {
		return fmt.Sprintf("%v for topic %q: the broker rejects its events (%s); %d are owed, the first for %v", ErrBackpressure, e.Topic, e.Reason, e.Backlog, e.Oldest.Round(time.Second))
	}
	return fmt.Sprintf("%v: %d events are owed to the broker, the oldest for %v", ErrBackpressure, e.Backlog, e.Oldest.Round(time.Second))
}

// Is makes the error match ErrBackpressure.
func (e *BackpressureError) Is(target error) bool { return target == ErrBackpressure }

// RetryAfterError is returned by a handler to have its event tried again after a pause. The try does not count as an
// attempt. handlers.RetryAfter makes one.
type RetryAfterError struct {
	After time.Duration // the pause before the next try
}

// Error names the pause.
func (e *RetryAfterError) Error() string { return fmt.Sprintf("try again after %v", e.After) }

// FieldError says that a field of an event, or of a Config, can't be accepted.
type FieldError struct {
	Field  string // the full path, such as outbox.Config.Pool; of an event its name alone, such as topic
	Reason string // what is wrong, and what is wanted instead
	Err    error  // the cause, or nil; Reason contains its text
}

// Error returns Field and Reason.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }
