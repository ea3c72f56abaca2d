// Package poll has tests wait for a condition that nothing signals: it is checked every few milliseconds, and less often the longer it
// takes, up to a limit.
package poll

import (
	"errors"
	"testing"
	"time"
)

// limit is how long Until waits: far longer than any condition takes on a busy machine.
const limit = time.Minute

// A condition is checked again after a twentieth of the time that it has taken so far, within these bounds: what takes seconds is found
// a little later, and checks, most of which are statements, don't keep the machine from what the test waits for.
const (
	minInterval = 5 * time.Millisecond
	maxInterval = 100 * time.Millisecond
)

// Until waits until ok returns true, and fails the test after a minute. what names the condition in the failure.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Within(t, limit, what, ok)
}

// Within is Until with a limit of its own.
func Within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	Succeeds(t, limit, func() error {
		if !ok() {
			return errors.New(what)
		}
		return nil
	})
}

// Succeeds waits until fn returns nil. After the limit it fails the test with the last error.
func Succeeds(t testing.TB, limit time.Duration, fn func() error) {
	t.Helper()
	late := time.NewTimer(limit)
	defer late.Stop()
	for begin := time.Now(); ; {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-time.After(min(max(time.Since(begin)/20, minInterval), maxInterval)):
		case <-late.C:
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}
