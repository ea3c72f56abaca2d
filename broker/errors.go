package broker

import (
	"errors"
	"fmt"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// What drivers answer; match with errors.Is. Each wraps the broker's own words.
var (
	ErrRejected      = errors.New("broker rejected the message") // definitely not stored; matched by all below but ErrUnavailable
	ErrTopicNotFound = rejected("topic not found")
	ErrUnauthorized  = rejected("not authorized")
	ErrTooLarge      = rejected("message too large")
	ErrIllegal       = rejected("message illegal")
	ErrBeyondHorizon = rejected("instant beyond the broker's horizon")
	ErrUnavailable   = errors.New("broker unavailable") // not reached, no answer in time, or busy: may have been stored
)

type rejection struct{ text string }

func rejected(text string) error          { return &rejection{text} }
func (r *rejection) Error() string        { return r.text }
func (r *rejection) Is(target error) bool { return target == ErrRejected }

// ReservedPropertyError names a property that belongs to the broker or to rocketflow.
type ReservedPropertyError struct{ Property string }

func (e *ReservedPropertyError) Error() string {
	return fmt.Sprintf("property %s is reserved: choose another name", printable.Quote(e.Property, printable.Name))
}

// Is makes the error match ErrRejected.
func (e *ReservedPropertyError) Is(target error) bool { return target == ErrRejected }
