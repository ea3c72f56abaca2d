package main

import (
	"cmp"

	"github.com/rocketflow/rocketflow"
)

// Two topics: what publishers publish, and what follows from it, which a handler publishes.
const (
	topicFirst  = "chaos-first"
	topicFollow = "chaos-follow"
	noteType    = "noted"
)

// source is the service that all processes are of.
const source = "chaos"

// Two consumers: audit reads both topics, echo the first, and publishes what follows.
const (
	audit = "audit"
	echo  = "echo"
)

// note is the event. It names itself, as its id is drawn anew in each run.
type note struct {
	Name     string `json:"name"`
	Schedule uint64 `json:"schedule"`
	Topic    string `json:"topic"`
	Stream   string `json:"stream"`           // empty: no order
	Counted  bool   `json:"counted"`          // the ledger counts its place in the stream
	Follow   bool   `json:"follow,omitempty"` // echo publishes one more
	Fail     int    `json:"fail,omitempty"`   // so often audit's handler fails first

	Type     string `json:"type,omitempty"`      // its event type, where it isn't noteType
	Nested   bool   `json:"nested,omitempty"`    // echo publishes the follower by joining a savepoint of its transaction
	EchoFail int    `json:"echo_fail,omitempty"` // so often echo's handler fails first
	Hang     int    `json:"hang,omitempty"`      // so many calls of audit's handler ignore their deadline until they are released
	HangLate bool   `json:"hang_late,omitempty"` // and have written by then
}

func (n note) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: n.Topic, Type: cmp.Or(n.Type, noteType), Subject: n.Stream}
}

// follower is the event that echo publishes for one. eventType is empty for noteType.
func (n note) follower(eventType string) note {
	f := note{Name: n.Name + "/follow", Schedule: n.Schedule, Topic: topicFollow, Counted: n.Counted, Type: eventType}
	if n.Stream != "" {
		f.Stream = n.Stream + "/follow"
	}
	return f
}
