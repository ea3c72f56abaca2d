package rocketflow

import (
	"errors"
	"fmt"
	"time"
)

// Errors that more than one part returns; match with errors.Is.
var (
	// ErrUndecodable: an event's body is not what its handler takes. Trying again won't help.
	ErrUndecodable = errors.New("undecodable event")
	// ErrBackpressure: too much is owed to the broker; publish later.
	ErrBackpressure = errors.New("outbox is full")
	// ErrStale: a handler finds that its event has lost its meaning. What it did is rolled back and the event counts as
	// handled.
	ErrStale = errors.New("stale event")
	// ErrCommitUnknown: nobody knows whether a transaction committed, because Postgres' answer to COMMIT was lost. Its
	// events follow it all the same: they go out if it did, and only then. Read what it would have written, or make the
	// transaction such that it can be run twice.
	ErrCommitUnknown = errors.New("it is not known whether the transaction committed")
	// ErrNotMigrated: rocketflow's tables are missing or older than the code. Run `rocketflow migrate up`.
	ErrNotMigrated = errors.New("database schema is not migrated: run `rocketflow migrate up`")
)

// SchemaOwnedError is returned by Start when the schema of rocketflow's tables belongs to another service: retention,
// sweep, timeouts and sagas of one service would act on the other's rows.
type SchemaOwnedError struct {
	Schema string // of rocketflow's tables
	Owner  string // the source whose service started on it first
	Source string // the one that was refused
}

func (e *SchemaOwnedError) Error() string {
	return fmt.Sprintf("schema %q belongs to service %q and can't be used by %q: set Schema to one of its own and run `rocketflow migrate up --schema NAME`, "+
		"or, if %[2]q was renamed to %[3]q, run `rocketflow migrate owner --schema %[1]s --set %[3]s`", e.Schema, e.Owner, e.Source)
}

// BackpressureError matches ErrBackpressure. Nothing has been written when it is returned.
type BackpressureError struct {
	Backlog int64         // events owed to the broker
	Oldest  time.Duration // age of the oldest of them
	// Topic, if not empty, is the only topic that is refused: the broker rejects its events, and Backlog counts those.
	Topic  string
	Reason string // why the broker rejects them
}

func (e *BackpressureError) Error() string {
	if e.Topic != "" {
		return fmt.Sprintf("%v for topic %q: the broker rejects its events (%s); %d are owed, the first for %v", ErrBackpressure, e.Topic, e.Reason, e.Backlog, e.Oldest.Round(time.Second))
	}
	return fmt.Sprintf("%v: %d events are owed to the broker, the oldest for %v", ErrBackpressure, e.Backlog, e.Oldest.Round(time.Second))
}

// Is makes the error match ErrBackpressure.
func (e *BackpressureError) Is(target error) bool { return target == ErrBackpressure }

// RetryAfterError asks for the event again after a while, without counting an attempt.
type RetryAfterError struct{ After time.Duration }

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
