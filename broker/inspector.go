package broker

import (
	"context"
	"time"
)

// StoredMessage is a message that a broker holds in a queue.
type StoredMessage struct {
	Delivery
	// OffsetID is the id that the broker gave it when it was stored.
	OffsetID string
	// Transactional says that it was a half message that was committed.
	Transactional bool
	// Checks is how often the broker had checked back about the half message when it was committed.
	Checks int
}

// QueuePosition is how far a consumer group has read a queue.
type QueuePosition struct {
	Broker string // the broker's name
	Queue  int    // the queue's number
	Begin  int64  // the offset of the oldest message that the broker holds
	End    int64  // the offset of the next message
	// Oldest is when the message at Begin was stored. It is the zero time if Begin is 0, where nothing has expired, or if the
	// broker holds no message of the queue.
	Oldest time.Time
	// Committed is the offset up to which the group has read, exclusively; -1: the group has read nothing.
	Committed int64
	// Unread is when the oldest unread message was stored. It is the zero time if no message is unread, or if Committed is -1.
	Unread time.Time
}

// Lag returns how many messages of the queue the group has not read.
func (p QueuePosition) Lag() int64 { return max(p.End-max(p.Committed, p.Begin), 0) }

// Inspector answers what only a broker knows. It changes nothing at the broker.
type Inspector interface {
	// FindMessages returns the messages of a topic that have a key, were stored between two times, and are still held, the
	// oldest first; 32 of each broker at most. An error means that some broker wasn't asked.
	FindMessages(ctx context.Context, topic, key string, from, to time.Time) ([]StoredMessage, error)
	// MessageByOffsetID returns the message with the id that the broker gave it when it was stored, as RocketMQ's tools show it:
	// 32 or 56 hexadecimal digits. The error matches ErrNoMessage if the broker doesn't hold it.
	MessageByOffsetID(ctx context.Context, id string) (StoredMessage, error)
	// QueuePositions returns how far a group has read each queue of a topic.
	QueuePositions(ctx context.Context, group, topic string) ([]QueuePosition, error)
}
