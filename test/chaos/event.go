package main

import (
	"cmp"

	"github.com/rocketflow/rocketflow"
)

// Two topics: what publishers publish, and what follows from it, which a handler publishes.
const (
	topicFirst    = "chaos-first"
	topicFollow   = "chaos-follow"
	baseEventType = "noted"
)

// source is the name of the service whose processes run.
const source = "chaos"

// Two consumers: audit reads both topics, echo the first, and publishes what follows.
const (
	audit = "audit"
	echo  = "echo"
)

// testEvent is the event that publishers publish. Its name is the same in each run, other than its id.
type testEvent struct {
	Name     string `json:"name"`
	Schedule uint64 `json:"schedule"`
	Topic    string `json:"topic"`
	Stream   string `json:"stream"`           // empty: unordered
	Counted  bool   `json:"counted"`          // the ledger counts its place in the stream, to check the order
	Follow   bool   `json:"follow,omitempty"` // echo publishes another event when it handles this one
	Fail     int    `json:"fail,omitempty"`   // how often audit's handler fails before it succeeds, per process

	Type     string `json:"type,omitempty"`      // its event type; empty for baseEventType
	Nested   bool   `json:"nested,omitempty"`    // echo publishes the follower in a joined savepoint of its transaction
	EchoFail int    `json:"echo_fail,omitempty"` // how often echo's handler fails before it succeeds, per process
	Hang     int    `json:"hang,omitempty"`      // how many calls of audit's handler ignore their deadline until they are released
	HangLate bool   `json:"hang_late,omitempty"` // they hang after they have written to the ledger, not before
}

func (n testEvent) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: n.Topic, Type: cmp.Or(n.Type, baseEventType), Subject: n.Stream}
}

// follower returns the event that echo publishes when it handles n. An empty eventType means baseEventType.
func (n testEvent) follower(eventType string) testEvent {
	f := testEvent{Name: n.Name + "/follow", Schedule: n.Schedule, Topic: topicFollow, Counted: n.Counted, Type: eventType}
	if n.Stream != "" {
		f.Stream = n.Stream + "/follow"
	}
	return f
}
