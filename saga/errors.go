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

// UnknownStateError: the saga is in a state that this process's definition doesn't have, although the version is the same.
type UnknownStateError struct {
	Saga, Key string
	Version   int
	State     string
}

func (e *UnknownStateError) Error() string {
	return fmt.Sprintf("saga %s of %s is in state %s, which this process's definition of version %d doesn't have", e.Saga, printable.Line(e.Key, printable.Name), printable.Line(e.State, printable.Name), e.Version)
}

// UnknownSagasError: Start found sagas that this process's definitions can't go on with.
type UnknownSagasError struct {
	Groups []UnknownSagas
}

// UnknownSagas are the running sagas of a version and state that this process's definition doesn't have.
type UnknownSagas struct {
	Saga    string
	Version int
	State   string
	Count   int // at most 1000 are counted
	Reason  string
}

func (e *UnknownSagasError) Error() string {
	var b strings.Builder
	b.WriteString("sagas run that this program does not know how to go on with: run a version of the program that does, or end these sagas first")
	for _, g := range e.Groups {
		count := fmt.Sprint(g.Count)
		if g.Count >= maxCounted {
			count += " or more"
		}
		fmt.Fprintf(&b, "; saga %s: %s %s, state %s", g.Saga, count, g.Reason, printable.Line(g.State, printable.Name))
	}
	return b.String()
}

// DefinitionError lists what is wrong with a definition.
type DefinitionError struct {
	Saga     string
	Problems []string // each names its state or transition
}

func (e *DefinitionError) Error() string {
	return fmt.Sprintf("definition of saga %q: %s", e.Saga, strings.Join(e.Problems, "; "))
}
