package saga

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rocketflow/rocketflow/internal/printable"
)

var (
	// ErrExists: a saga of this name and key was begun before, and may be finished.
	ErrExists = errors.New("saga exists")
	// ErrNotFound: no saga of this name and key was begun, or it finished long ago.
	ErrNotFound = errors.New("saga not found")
	// ErrNotExpected: the saga's state has no transition for the event. Matched by *NotExpectedError.
	ErrNotExpected = errors.New("event not expected in this state")
)

// NotExpectedError says in which state the saga is. It matches ErrNotExpected.
type NotExpectedError struct {
	Saga, Key string
	State     string
	Finished  bool
	Type      string // the event's
}

func (e *NotExpectedError) Error() string {
	state := "state " + e.State
	if e.Finished {
		state = "final " + state
	}
	return fmt.Sprintf("saga %s of %s: event %s not expected in %s", e.Saga, printable.Line(e.Key, printable.Name), printable.Line(e.Type, printable.Name), state)
}

// Is makes the error match ErrNotExpected.
func (e *NotExpectedError) Is(target error) bool { return target == ErrNotExpected }

// VersionError: the saga began on a version of its definition that this process doesn't know.
type VersionError struct {
	Saga, Key string
	Version   int // the instance's
	Known     int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("saga %s of %s runs on version %d of its definition, this process knows version %d", e.Saga, printable.Line(e.Key, printable.Name), e.Version, e.Known)
}

// DefinitionError lists what is wrong with a definition.
type DefinitionError struct {
	Saga     string
	Problems []string // each names its state or transition
}

func (e *DefinitionError) Error() string {
	return fmt.Sprintf("definition of saga %q: %s", e.Saga, strings.Join(e.Problems, "; "))
}
