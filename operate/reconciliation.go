package operate

import (
	"time"

	"github.com/google/uuid"
)

// Reconciliation compares what was published with what consumers have recorded: what is handled, what waits and why, and what is
// missing. A pair of an event and a consumer that has a handler of it counts once.
type Reconciliation struct {
	From       time.Time                `json:"from"` // events recorded since then
	To         time.Time                `json:"to"`   // and until then
	Publishers []PublisherTotal         `json:"publishers"`
	Consumers  []ConsumerReconciliation `json:"consumers"`
	Missing    []MissingEvent           `json:"missing"` // the first of them, at most Limit
	// Unclaimed are types of events that no consumer of the schemas that were read has a handler of.
	Unclaimed []UnclaimedType `json:"unclaimed,omitempty"`
	// Mended is how many events were sent again.
	Mended int `json:"mended,omitempty"`
	// Postponed says why events that are lost were not sent again yet.
	Postponed string `json:"postponed,omitempty"`
	// Broker says why the broker was not asked, or not about all, or what it could not answer. Then Unknown counts what would be unread or
	// missing.
	Broker string         `json:"broker,omitempty"`
	Unread []UnreadSchema `json:"unread,omitempty"` // schemas that could not be read
	// Partial says that not all events are compared. A consumer has not handled more than 20,000 events, so of it only the oldest of these
	// are looked at and the others are counted as unread or unknown; or a continuous reconciliation has not read all new events, because a
	// transaction of the database server has been open for longer than Grace.
	Partial bool `json:"partial,omitempty"`
}

// PublisherTotal counts the events of a service.
type PublisherTotal struct {
	Service   string `json:"service"`
	Schema    string `json:"schema"`
	Published int    `json:"published"`
	Owed      int    `json:"owed"`     // the broker has not confirmed them yet
	Rejected  int    `json:"rejected"` // the broker rejects them
}

// ConsumerReconciliation counts the events of which a consumer has a handler.
type ConsumerReconciliation struct {
	Service  string `json:"service"`
	Schema   string `json:"schema"`
	Consumer string `json:"consumer"`
	Group    string `json:"group,omitempty"`
	Expected int    `json:"expected"` // the sum of the others
	Handled  int    `json:"handled"`
	Skipped  int    `json:"skipped"` // passed over by a stream that went on without them
	// Parked counts by reason, dead letters included.
	Parked map[HandlingState]int `json:"parked,omitempty"`
	Owed   int                   `json:"owed"` // the broker has not confirmed them yet
	// Paused is what an operator has paused of the consumer. Events of a paused consumer are unread.
	Paused  []Pause `json:"paused,omitempty"`
	Unread  int     `json:"unread"`           // in a queue that the consumer has not read so far
	Never   bool    `json:"never"`            // its group has never read the topic: it was never started
	Missing int     `json:"missing"`          // the broker has lost them, or the consumer's record of them
	Mended  int     `json:"mended,omitempty"` // those of the missing that were sent again
	// Unknown counts events that are unread or missing: the broker was not asked about them, or did not answer.
	Unknown int       `json:"unknown"`
	Oldest  time.Time `json:"oldest,omitzero"` // when the oldest that is not handled was recorded
}

// Waiting returns how many events wait: those that are parked, owed or unread.
func (c *ConsumerReconciliation) Waiting() int {
	n := c.Owed + c.Unread
	for _, parked := range c.Parked {
		n += parked
	}
	return n
}

// MissingCause says why an event is missing.
type MissingCause string

// The values of MissingCause.
const (
	// MissingLost means that the broker confirmed the event and doesn't hold it any more, and the consumer has no record of it.
	MissingLost MissingCause = "lost"
	// MissingExpired means the same, but the broker has deleted messages of that age by its retention: it may have been handled
	// before a record of that was deleted.
	MissingExpired MissingCause = "expired"
	// MissingPassed means that the consumer's group has read past the event, and the position of its stream says that it was not
	// handled: the group's offsets were moved, or the broker has lost messages and used their offsets again.
	MissingPassed MissingCause = "passed"
	// MissingUnrecorded means that the consumer's group has read past the event and the consumer has no record of it, not even a
	// position: a row of position or inbox was deleted, or it is as with MissingPassed. Its handler may have run, so Mend doesn't
	// send the event again.
	MissingUnrecorded MissingCause = "unrecorded"
)

// mendable reports whether an event that is missing for this cause is known not to have been handled.
func (c MissingCause) mendable() bool { return c == MissingLost || c == MissingPassed }

// MissingEvent is an event that a consumer should have handled, of which nothing is recorded or in a queue.
type MissingEvent struct {
	EventID    uuid.UUID    `json:"event_id"`
	Type       string       `json:"type"`
	Topic      string       `json:"topic"`
	Subject    string       `json:"subject,omitempty"`
	RecordedAt time.Time    `json:"recorded_at"`
	Publisher  string       `json:"publisher"`        // the schema of the service that published it
	Consumer   string       `json:"consumer"`         // the consumer that should have handled it
	Schema     string       `json:"schema"`           // the schema of the consumer
	Cause      MissingCause `json:"cause"`            // why it is missing
	Mended     bool         `json:"mended,omitempty"` // it was sent again

	publisher int // in the members of the pass
	by        *subscriber
}

// UnclaimedType is a type of events that no consumer handles.
type UnclaimedType struct {
	Topic  string `json:"topic"`
	Type   string `json:"type"`
	Events int    `json:"events"`
}

// Totals returns the sums over all consumers.
func (r *Reconciliation) Totals() (published, handled, waiting, missing, unknown int) {
	for _, p := range r.Publishers {
		published += p.Published
	}
	for i := range r.Consumers {
		c := &r.Consumers[i]
		handled += c.Handled
		waiting += c.Waiting()
		missing += c.Missing
		unknown += c.Unknown
	}
	return published, handled, waiting, missing, unknown
}
