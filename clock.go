package rocketflow

import "time"

// Clock is where the parts of rocketflow take the time from and wait: a field of each part's Config. nil is the
// machine's clock, which is right everywhere but in tests: package rocketflowtest gives one that a test can move.
//
// What is due is decided by Postgres' clock, never by this one. This one says when to look again, to which day an event's
// id belongs, and what is older than a retention; so the two should agree, and whoever moves one moves the other, Postgres
// first. Deadlines of requests, heartbeats and the pauses after which a server that is away is tried again stay with the
// machine.
type Clock interface {
	Now() time.Time

	// After returns a channel that gets the time when d has passed, and a func that gives up waiting.
	After(d time.Duration) (fired <-chan time.Time, stop func())
}
