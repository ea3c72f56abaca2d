package saga

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rocketflow/rocketflow/internal/printable"
)

var (
	// ErrExists is returned by Begin if a saga with this name and key exists, running or finished.
	ErrExists = errors.New("saga exists")
	// ErrNotFound is returned by Apply and Get if no saga with this name and key exists: it never began, or retention deleted
	// it.
	ErrNotFound = errors.New("saga not found")
	// ErrNotExpected is matched by *NotExpectedError.
	ErrNotExpected = errors.New("event not expected in this state")
)

// NotExpectedError is returned by Apply if the saga's state has no transition for the event. It matches ErrNotExpected.
type NotExpectedError struct {
	// Saga and Key identify the saga.
	Saga, Key string
	// State is the state that the saga is in.
	State string
	// Finished reports whether State is final.
	Finished bool
	// Type is the type of the event.
	Type string
}

// Error returns the saga, its state and the event.
func (e *NotExpectedError) Error() string {
	state := "state " + e.State
	if e.Finished {
		state = "final " + state
	}
	return fmt.Sprintf("saga %s of %s: event %s not expected in %s", e.Saga, printable.Line(e.Key, printable.Name), printable.Line(e.Type, printable.Name), state)
}

// Is makes the error match ErrNotExpected.
func (e *NotExpectedError) Is(target error) bool { return target == ErrNotExpected }

// VersionError is the error of an event for a saga that began on a version of its definition which this process doesn't
// have. The event fails, and the router tries it again.
type VersionError struct {
	// Saga and Key identify the saga.
	Saga, Key string
	// Version is the version that the saga began on.
	Version int
	// Known is the version that this process has.
	Known int
}

// Error returns the saga and the two versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("saga %s of %s runs on version %d of its definition, this process has version %d", e.Saga, printable.Line(e.Key, printable.Name), e.Version, e.Known)
}

// UnknownStateError is the error of an event for a saga in a state that this process's definition of the same version
// doesn't have. The event fails, and the router tries it again.
type UnknownStateError struct {
	// Saga and Key identify the saga.
	Saga, Key string
	// Version is the version of the definition.
	Version int
	// State is the state that the saga is in.
	State string
}

// Error returns the saga and its state.
func (e *UnknownStateError) Error() string {
	return fmt.Sprintf("saga %s of %s is in state %s, which this process's definition of version %d doesn't have", e.Saga, printable.Line(e.Key, printable.Name), printable.Line(e.State, printable.Name), e.Version)
}

// UnknownReason is why a definition can't go on with running sagas.
type UnknownReason string

// The reasons of UnknownSagas.
const (
	// UnknownVersion: the sagas began on a version that the definition doesn't have.
	UnknownVersion UnknownReason = "unknown version"
	// UnknownState: the sagas are in a state that the definition of the same version doesn't have.
	UnknownState UnknownReason = "unknown state"
)

// UnknownSagas are the running sagas of one name, version and state that this process's definition can't go on with.
type UnknownSagas struct {
	// Saga is the name of the sagas.
	Saga string
	// Version is the version that they began on.
	Version int
	// State is the state that they are in.
	State string
	// Count is their number. At most 1000 are counted.
	Count int
	// Reason is why the definition can't go on with them.
	Reason UnknownReason
	// Known is the version of the definition.
	Known int
}

// String returns the number of sagas and why the definition can't go on with them.
func (g UnknownSagas) String() string {
	count := fmt.Sprint(g.Count)
	if g.Count >= maxCountedSagas {
		count += " or more"
	}
	state := printable.Line(g.State, printable.Name)
	if g.Reason == UnknownVersion {
		return fmt.Sprintf("saga %s: %s on version %d (this program has version %d), state %s", g.Saga, count, g.Version, g.Known, state)
	}
	return fmt.Sprintf("saga %s: %s in state %s of version %d, which this program's definition doesn't have", g.Saga, count, state, g.Version)
}

// UnknownSagasError is returned by Start if sagas run that this process's definitions can't go on with.
type UnknownSagasError struct {
	// Groups are the sagas by name, version and state.
	Groups []UnknownSagas
}

// Error lists the groups.
func (e *UnknownSagasError) Error() string {
	var b strings.Builder
	b.WriteString("sagas run that this program can't go on with: run a version of the program that can, or end these sagas first")
	for _, g := range e.Groups {
		b.WriteString("; " + g.String())
	}
	return b.String()
}

// DefinitionError is returned by Register for a definition that is not valid.
type DefinitionError struct {
	// Saga is the name of the definition.
	Saga string
	// Problems lists all that is wrong. Each problem names its state, transition or event.
	Problems []string
}

// Error lists the problems.
func (e *DefinitionError) Error() string {
	return fmt.Sprintf("definition of saga %q: %s", e.Saga, strings.Join(e.Problems, "; "))
}
