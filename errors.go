package rocketflow

import (
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/printable"
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
	// ErrNotMigrated: rocketflow's tables are missing or older than the code. Run `rocketflow migrate up`.
	ErrNotMigrated = errors.New("database schema is not migrated: run `rocketflow migrate up`")
)

// BackpressureError matches ErrBackpressure. Nothing has been written when it is returned.
type BackpressureError struct {
	Backlog int64         // events owed to the broker
	Oldest  time.Duration // age of the oldest of them
}

func (e *BackpressureError) Error() string {
	return fmt.Sprintf("%v: %d events are owed to the broker, the oldest for %v", ErrBackpressure, e.Backlog, e.Oldest.Round(time.Second))
}

// Is makes the error match ErrBackpressure.
func (e *BackpressureError) Is(target error) bool { return target == ErrBackpressure }

// RetryAfterError asks for the event again after a while, without counting an attempt.
type RetryAfterError struct{ After time.Duration }

func (e *RetryAfterError) Error() string { return fmt.Sprintf("try again after %v", e.After) }

// FieldError names a field of an event, or of a Config, that can't be accepted.
type FieldError struct {
	Field  string
	Reason string
	Err    error // may be nil
}

func (e *FieldError) Error() string {
	text := printable.Line(e.Field, printable.Name) + ": " + printable.Line(e.Reason, printable.Reason)
	if e.Err != nil {
		text += ": " + printable.Line(e.Err.Error(), printable.Reason)
	}
	return text
}

func (e *FieldError) Unwrap() error { return e.Err }
