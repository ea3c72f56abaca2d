// Package poll has tests wait for a condition that nothing signals: it is checked every few milliseconds, up to a limit.
package poll

import (
	"errors"
	"testing"
	"time"
)

// limit is how long Until waits: far longer than any condition takes on a busy machine.
const limit = time.Minute

const interval = 5 * time.Millisecond

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
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}
