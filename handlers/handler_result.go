package handlers

import (
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow"
)

type discardError struct{ err error }

func (e *discardError) Error() string { return fmt.Sprintf("discard: %v", e.err) }
func (e *discardError) Unwrap() error { return e.err }

// Settles reports to sagas, which apply events by themselves, that the event is settled without effect.
func (e *discardError) Settles() bool { return true }

type deadError struct{ err error }

func (e *deadError) Error() string { return e.err.Error() }
func (e *deadError) Unwrap() error { return e.err }

// GivesUp reports to sagas that the event must not be tried again.
func (e *deadError) GivesUp() bool { return true }

// Discard returns an error for a handler to return: the handler's changes are rolled back, and the event is settled as
// handled. err is the reason; it may be nil.
func Discard(err error) error {
	if err == nil {
		err = errors.New("not needed")
	}
	return &discardError{err}
}

// Dead returns an error for a handler to return: the event becomes a dead letter at once, because trying again won't help.
// err is the reason; it may be nil.
func Dead(err error) error {
	if err == nil {
		err = errors.New("given up by its handler")
	}
	return &deadError{err}
}

// RetryAfter returns an error for a handler to return: the handler's changes are rolled back, and the event is tried again
// after d. It counts no attempt, so an event for which it is always returned never becomes a dead letter. The events behind
// an ordered one wait.
func RetryAfter(d time.Duration) error { return &rocketflow.RetryAfterError{After: d} }
