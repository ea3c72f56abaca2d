package broker

import (
	"errors"
	"fmt"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Errors of drivers; match with errors.Is. Each wraps the broker's own text.
var (
	// ErrRejected is matched by all errors that say that a message was definitely not stored: by those below except for
	// ErrUnavailable, and by *ReservedPropertyError.
	ErrRejected = errors.New("broker rejected the message")
	// ErrTopicNotFound means that the topic doesn't exist.
	ErrTopicNotFound = rejected("topic not found")
	// ErrUnauthorized means that the credentials are wrong, or that the user lacks a grant.
	ErrUnauthorized = rejected("not authorized")
	// ErrTooLarge means that a message is larger than the broker takes.
	ErrTooLarge = rejected("message too large")
	// ErrIllegal means that a message, or another argument of the call, can't be accepted.
	ErrIllegal = rejected("message illegal")
	// ErrBeyondHorizon means that an instant is further ahead than Scheduler.Horizon.
	ErrBeyondHorizon = rejected("instant beyond the broker's horizon")
	// ErrNoTimers means that the broker doesn't deliver messages at an instant: it has no timers, or they are switched off.
	ErrNoTimers = rejected("broker has no timers")
	// ErrNoHalfMessages means that half messages aren't used with the broker: it has none, or their ends can't be relied on.
	ErrNoHalfMessages = rejected("broker has no half messages")
	// ErrBeginsOldest means that a new group can only begin at the oldest message.
	ErrBeginsOldest = rejected("a new group begins at the oldest message")
	// ErrUnavailable means that the broker was not reached, has not responded in time, or is too busy. The message may have been
	// stored. Try again later.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrNoMessage means that the broker doesn't hold a message that an Inspector was asked for.
	ErrNoMessage = errors.New("the broker has no message")
)

// rejection is an error that matches ErrRejected.
type rejection struct{ text string }

func rejected(text string) error { return &rejection{text} }

// Error returns the text.
func (r *rejection) Error() string { return r.text }

// Is makes the error match ErrRejected.
func (r *rejection) Is(target error) bool { return target == ErrRejected }

// ReservedPropertyError is the error of a message, or an event, with a property whose name the broker or rocketflow reserves. It matches
// ErrRejected.
type ReservedPropertyError struct{ Property string }

// Error names the property.
func (e *ReservedPropertyError) Error() string {
	return fmt.Sprintf("property %s is reserved: choose another name", printable.Quote(e.Property, printable.Name))
}

// Is makes the error match ErrRejected.
func (e *ReservedPropertyError) Is(target error) bool { return target == ErrRejected }
