package rocketflow

import "time"

// Clock gives the parts of rocketflow the time and wakes them after a pause. It is a field of each part's Config; nil means
// the machine's clock. Only tests need another one: package rocketflowtest has a clock that a test can advance.
//
// Whether something is due is decided by Postgres' clock alone. Clock decides when a part looks again, to which day the id
// of an event belongs, and what is older than a retention. So a test that advances it must advance Postgres' clock first.
// Timeouts of requests, heartbeats and the pauses before a server is tried again always use the machine's clock.
//
// Its methods may be called by several goroutines at once.
type Clock interface {
	// Now returns the current time.
	Now() time.Time

	// After returns a channel that receives the time once d has passed, and a function that stops the wait and releases what
	// it holds.
	After(d time.Duration) (fired <-chan time.Time, stop func())
}
