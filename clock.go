package rocketflow

import "time"

// Clock is where the parts of rocketflow take the time from and wait: a field of each part's Config. nil is the
// machine's clock, which is right everywhere but in tests: package rocketflowtest gives one that a test can move.
//
// What is due is decided by Postgres' clock, never by this one; this one only says when to look again.
type Clock interface {
	Now() time.Time

	// After returns a channel that gets the time when d has passed, and a func that gives up waiting.
	After(d time.Duration) (fired <-chan time.Time, stop func())
}
