// Package broker is the port between rocketflow and a message broker: what the concepts need of one, in a few small
// interfaces, and the delivery contract that each driver keeps. The driver for Apache RocketMQ is package rocketmq;
// the conformance suite that every driver passes is package brokertest.
//
// # The contract
//
//   - Send, SendGroup, Schedule, Commit return nil only once the broker has stored the message. An error means unknown,
//     not refused: the message may have been stored all the same, unless the error matches [ErrRejected].
//   - Prepare stores a half message that no consumer sees until Commit. Commit twice delivers twice; Rollback after
//     Commit does nothing. Whoever prepared and does not end it is asked by a check.
//   - A Handler is called at least once for each message of its subscription. nil settles the message for the group;
//     an error, a panic, a runtime.Goexit or a crash brings it again. Calls are concurrent; only with
//     Subscription.Serial is a queue's next message held until the one before is settled.
//   - Messages sent one after the other (each answered before the next) with the same sharding key are stored in that
//     order in one queue.
//   - What a function of the caller does to its goroutine, a panic or a runtime.Goexit, ends that one call and nothing else.
//   - A context bounds the wait for an answer. What was written when it ends may still take effect.
//
// A broker tells consumers nothing of who sent a message: whoever may publish to a topic can send any event, of any source,
// with any sequence. docs/security.md says what that allows and which rights bound it.
//
// All methods are safe for concurrent use. A Message is never changed by a driver and may be reused after the call.
package broker

import (
	"context"
	"time"
)

// Message is what a driver puts on the wire.
type Message struct {
	ID          string            // the broker's unique key of the message; empty: the driver draws one
	Topic       string            // required
	Tag         string            // at most one; brokers filter by it
	Keys        []string          // indexed by the broker's tools; no spaces
	ShardingKey string            // messages with the same key go to the same queue; empty: any queue
	Properties  map[string]string // the user's own; a name reserved by the broker is refused (*ReservedPropertyError)
	Body        []byte
}

// Receipt says where a message was stored.
type Receipt struct {
	MessageID string // as in [Message].ID
	Broker    string // the broker's name
	Queue     int
	Offset    int64
}

// Sender sends normal and ordered messages. Global order is a topic with one queue.
type Sender interface {
	// Send waits for the broker's answer.
	Send(ctx context.Context, m Message) (Receipt, error)
	// SendAsync returns at once; done is called exactly once, from another goroutine, also after the context ended.
	// At the limit of sends in flight it blocks until there is room or ctx ends, and then returns the error itself
	// without ever calling done.
	SendAsync(ctx context.Context, m Message, done func(Receipt, error)) error
	// SendGroup stores messages of one topic in as few requests as the broker allows: one for each queue that the
	// sharding keys name. The error of a message stands at its place in the result; nil means that all are stored.
	SendGroup(ctx context.Context, ms []Message) []error
}

// Half is a stored half message: what is needed to end it.
type Half struct {
	MessageID     string
	Topic         string
	Broker        string // name
	Address       string // of the broker that holds it
	Group         string
	TransactionID string
	QueueOffset   int64
	CommitLog     int64
}

// TransactionProducer runs the two phases of a transactional message for a producer group. Ends wait for the broker's answer.
type TransactionProducer interface {
	Prepare(ctx context.Context, m Message) (Half, error)
	Commit(ctx context.Context, h Half) error
	Rollback(ctx context.Context, h Half) error
	// Close stops answering checks, once those at hand are answered (until ctx ends).
	Close(ctx context.Context) error
}

// TransactionProducerOpener opens transaction producers.
type TransactionProducerOpener interface {
	// OpenTransactionProducer joins a producer group and answers checks for it from its return on, also for half messages of
	// other processes, and before anything was sent from this one. ctx bounds the start only.
	OpenTransactionProducer(ctx context.Context, group string, check Checker) (TransactionProducer, error)
}

// Decision answers a check.
type Decision int

const (
	Unknown  Decision = iota // ask again later
	Commit                   // the local transaction committed
	Rollback                 // it did not, or the message is out already
)

// Check is the broker's question what became of a half message.
type Check struct {
	Half    Half
	Message Delivery // as prepared, without its body; Attempt counts the checks, beginning with 1
}

// Checker answers checks, concurrently and for any member of its group. A panic, a runtime.Goexit or a passed deadline counts as Unknown.
// The driver then ends the half message, waits for the answer and calls done, if it is not nil. With Commit or Rollback
// done gets nil only if the broker has taken the decision.
type Checker func(ctx context.Context, c Check) (d Decision, done func(error))

// Timer is a scheduled message that can be cancelled.
type Timer struct {
	MessageID string
	Topic     string
	Broker    string // name
	Due       time.Time
}

// Scheduler sends messages that become visible at an instant, never before.
type Scheduler interface {
	// Schedule stores m to be delivered at. An instant that has passed: delivered at once. Beyond the horizon:
	// ErrBeyondHorizon.
	Schedule(ctx context.Context, m Message, at time.Time) (Timer, error)
	// Cancel asks the broker to drop the message. nil means that the request was stored, which is no promise: too close
	// to the instant it comes too late.
	Cancel(ctx context.Context, t Timer) error
	// Horizon is how far ahead Schedule reaches.
	Horizon() time.Duration
}

// Delivery is a message as a consumer, or a checker, gets it.
type Delivery struct {
	Message
	Broker  string
	Queue   int
	Offset  int64
	Born    time.Time // by the sender's clock
	Stored  time.Time // by the broker's clock
	Attempt int       // beginning with 1, as far as the broker knows
}

// Handler takes one message. See the contract in the package comment.
type Handler func(ctx context.Context, d Delivery) error

// Subscription is one consumer group of one or more topics. All processes of a group must subscribe alike.
type Subscription struct {
	Group       string
	Topics      []string
	Serial      bool // one message of a queue at a time, in the queue's order (RocketMQ's orderly mode: slow to move between processes)
	MaxInFlight int  // how many messages the handler holds at once; default 256
	MaxBuffered int  // how many messages of a queue wait in memory before pulling pauses; default 1024

	// Begin is where the group begins in each topic that it has never read. It holds for the queues that exist when its
	// first consumer starts, and all their brokers must answer then (else ErrUnavailable). Queues and brokers that come later
	// are read from their oldest message, so that nothing is passed over. Default BeginOldest.
	Begin Begin
}

// Consumer is a running subscription.
type Consumer interface {
	// Stop stops taking messages, waits for running handlers (until ctx ends) and stores what they settled.
	Stop(ctx context.Context) error
	// Err says why the consumer gets no messages at present; nil while it is healthy.
	Err() error
}

// Subscriber starts consumers.
type Subscriber interface {
	// Subscribe returns once the group is known to the broker, or says why it can't be: ErrTopicNotFound,
	// ErrUnauthorized, ErrUnavailable. ctx bounds the start only.
	Subscribe(ctx context.Context, s Subscription, h Handler) (Consumer, error)
}

// TopicKind tells the broker's tools what a topic carries.
type TopicKind string

const (
	Normal      TopicKind = "NORMAL"
	FIFO        TopicKind = "FIFO"
	Delay       TopicKind = "DELAY"
	Transaction TopicKind = "TRANSACTION"
)

// Topic describes a topic to be created.
type Topic struct {
	Name   string
	Queues int       // default 8
	Kind   TopicKind // default Normal
}
