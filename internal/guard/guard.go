// Package guard calls functions of the application so that a panic or a runtime.Goexit in one of them ends that call and
// nothing else.
//
//	if err := guard.Run(fn); err != nil {
//		reporter.Report("AfterCommit", err)
//	}
package guard

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// PanicError is the error of a function that panicked.
type PanicError struct {
	Value any    // the argument of panic
	Stack []byte // of the goroutine that panicked
}

// Error returns the value's text, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrGoexit is the error of a function that ended its goroutine by runtime.Goexit, as testing's FailNow does.
var ErrGoexit = errors.New("runtime.Goexit was called")

// Call calls fn and returns a *PanicError if it panics, else nil. A runtime.Goexit ends the caller's goroutine, too: see
// Run.
func Call(fn func()) (err error) {
	normal := false
	defer func() {
		if normal {
			return
		}
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	fn()
	normal = true
	return nil
}

// Run calls fn in a goroutine of its own and waits for it. It returns a *PanicError if fn panics, ErrGoexit if fn calls
// runtime.Goexit, else nil. It costs about a microsecond more than Call.
func Run(fn func()) error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit // unless Call returns
		defer func() { done <- err }()
		err = Call(fn)
	}()
	return <-done
}
