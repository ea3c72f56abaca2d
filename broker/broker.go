package broker

import (
	"context"
	"time"
)

// Message is a message that is sent.
type Message struct {
	// ID is the broker's unique key of the message.
	// Defaults to one that the driver generates.
	ID string
	// Topic is the topic to send to. Required.
	Topic string
	// Tag is a label by which brokers can filter.
	// Defaults to none.
	Tag string
	// Keys are words under which the broker's tools find the message. They contain no spaces.
	Keys []string
	// ShardingKey chooses the queue: messages of a topic with the same key are stored in the same queue.
	// Defaults to any queue.
	ShardingKey string
	// Properties are the user's own. A name that is reserved by the broker is refused with a *ReservedPropertyError: see Reserved.
	Properties map[string]string
	// Body is the payload. Required.
	Body []byte
}

// Receipt says where a message was stored.
type Receipt struct {
	MessageID string // Message.ID, or the generated one
	Broker    string // the broker's name
	Queue     int    // the queue's number
	Offset    int64  // the message's position in the queue
}

// Sender sends messages. For a total order of all messages use a topic with one queue.
type Sender interface {
	// Send sends one message and waits until the broker has stored it.
	Send(ctx context.Context, m Message) (Receipt, error)
	// SendAsync sends one message in the background and calls done exactly once, from another goroutine, also when ctx ends
	// first. At the limit of sends in flight SendAsync blocks until one ends. If ctx ends while it blocks, it returns the error
	// and never calls done.
	SendAsync(ctx context.Context, m Message, done func(Receipt, error)) error
	// SendGroup sends messages in as few requests as the broker allows: one for each queue that the sharding keys choose. It
	// returns nil if all messages are stored. Otherwise errs[i] is the error of ms[i], nil if that one is stored.
	SendGroup(ctx context.Context, ms []Message) (errs []error)
}

// Half identifies a stored half message. Commit and Rollback need it; callers have no use for its fields but to log them.
type Half struct {
	MessageID     string // Message.ID, or the generated one
	Topic         string // the topic that a commit delivers the message to
	Broker        string // the broker's name
	Address       string // the broker's address, host:port
	Group         string // the producer group
	TransactionID string // the broker's id of the transaction
	QueueOffset   int64  // the offset in the broker's internal queue of half messages
	CommitLog     int64  // the offset in the broker's commit log
}

// TransactionProducer sends half messages for one producer group and ends them. It is RocketMQ's side of a transactional message; a
// transaction of the database is a rocketflow.Transactor's.
type TransactionProducer interface {
	// Prepare stores m as a half message, which consumers don't see.
	Prepare(ctx context.Context, m Message) (Half, error)
	// Commit delivers the message of h to consumers. It waits for the broker's response.
	Commit(ctx context.Context, h Half) error
	// Rollback drops h. It waits for the broker's response.
	Rollback(ctx context.Context, h Half) error
	// Close leaves the producer group and waits until checks that have arrived are decided, or until ctx ends. Later checks go
	// to other members of the group. A second Close does nothing.
	Close(ctx context.Context) error
}

// TransactionProducerOpener opens transaction producers.
type TransactionProducerOpener interface {
	// OpenTransactionProducer joins a producer group. When it returns, the broker sends the group's checks to this process, among
	// others: also checks of half messages of other processes, and before this process has sent anything. ctx bounds the call only. A
	// driver that finds brokers by the topics that it uses tells a broker of the group when it has found it. If
	// half messages aren't used with the broker the error matches ErrNoHalfMessages.
	OpenTransactionProducer(ctx context.Context, group string, check Checker) (TransactionProducer, error)
}

// Decision is what a Checker decides about a half message. The zero value is Unknown.
type Decision int

const (
	// Unknown means that it isn't known yet whether the local transaction committed: the broker repeats the check later.
	Unknown Decision = iota
	// Commit means that the local transaction committed: the broker delivers the message.
	Commit
	// Rollback means that the local transaction did not commit, or that the message was sent in another way: the broker drops the
	// half message.
	Rollback
)

// String returns "unknown", "commit" or "rollback".
func (d Decision) String() string {
	switch d {
	case Commit:
		return "commit"
	case Rollback:
		return "rollback"
	}
	return "unknown"
}

// Check is a check-back: the broker's request for the decision about a half message that is neither committed nor rolled back.
type Check struct {
	Half Half // the half message to decide about
	// Message is the message as it was prepared, without its body. Its Attempt counts the checks of this half message, beginning
	// with 1.
	Message Delivery
}

// Checker decides about half messages, those of any member of its group. Calls are concurrent. A panic, a runtime.Goexit, or a return
// after ctx's deadline counts as Unknown.
//
// The driver then sends the decision to the broker, waits for the response, and calls done unless it is nil. If the decision was Commit or
// Rollback, done gets nil only if the broker has taken it.
type Checker func(ctx context.Context, c Check) (d Decision, done func(error))

// Timer identifies a scheduled message, so that it can be cancelled.
type Timer struct {
	MessageID string    // Message.ID, or the generated one
	Topic     string    // the topic of the message
	Broker    string    // the broker's name
	Due       time.Time // when the message becomes visible
}

// Scheduler sends messages that consumers see at an instant or later, never before.
type Scheduler interface {
	// Schedule sends m to be delivered at an instant. If it has passed, m is delivered at once. If it is further ahead than
	// Horizon, the error matches ErrBeyondHorizon; if the broker has no timers, it matches ErrNoTimers.
	Schedule(ctx context.Context, m Message, at time.Time) (Timer, error)
	// Cancel requests that the broker drop the message of t. nil means that the broker has stored the request, and doesn't
	// promise that the message won't be delivered: close to the instant the request comes too late. If the broker has no timers,
	// the error matches ErrNoTimers.
	Cancel(ctx context.Context, t Timer) error
	// Horizon returns how far ahead Schedule accepts an instant. It is 0 if the broker is known to have no timers, and may change
	// when a broker is reached for the first time, or is replaced by another version.
	Horizon() time.Duration
}

// Delivery is a message as a Handler or a Checker gets it.
type Delivery struct {
	Message
	Broker  string    // the broker's name
	Queue   int       // the queue's number
	Offset  int64     // the message's position in the queue
	Born    time.Time // when it was sent, by the sender's clock; zero if that is no time in the years 1 to 9999
	Stored  time.Time // when it was stored, by the broker's clock; zero likewise
	Attempt int       // the broker's count of deliveries, beginning with 1

	// Unreadable is why the message can't be read, such as that its body is larger than the driver's limit when it is decompressed, or
	// that the broker's record of it is damaged. Body then has the bytes that the broker stores, of the body or else of the record, and
	// the other fields have what could be read. nil: the message is what was sent.
	Unreadable error
}

// Handler handles one message. nil settles it; after an error it is delivered again. See the delivery contract in the package comment.
type Handler func(ctx context.Context, d Delivery) error

// Subscription is what a consumer group reads. All processes of a group must have equal subscriptions.
type Subscription struct {
	// Group is the name of the consumer group. Each message goes to one consumer of each group. Required.
	Group string
	// Topics are the topics that the group reads. At least one is required.
	Topics []string
	// Serial makes the handler get one message of a queue at a time, in the queue's order. It is RocketMQ's orderly mode: when a
	// queue moves to another process, it isn't read for up to 80 s.
	// Defaults to false.
	Serial bool
	// MaxInFlight is the maximum number of concurrent calls of the handler.
	// Defaults to 256.
	MaxInFlight int
	// MaxBuffered is the maximum number of messages of one queue that wait in memory.
	// Defaults to 1024.
	MaxBuffered int
	// Begin is where the group begins in each topic that it has never read. It holds for the queues that exist when the group's first
	// consumer starts; their brokers must all respond then, or else Subscribe fails with ErrUnavailable. Queues and brokers that are
	// added later are read from their oldest message, so that no message is skipped. Where a new group can only begin at the oldest
	// message, Subscribe fails with ErrBeginsOldest.
	// Defaults to BeginOldest.
	Begin Begin
}

// Consumer is a running subscription.
type Consumer interface {
	// Stop takes no more messages, waits for running handlers until ctx ends, and stores which messages they have settled. A second
	// Stop does nothing.
	Stop(ctx context.Context) error
	// Err returns why the consumer gets no messages at present, or nil.
	Err() error
}

// Subscriber starts consumers.
type Subscriber interface {
	// Subscribe starts a consumer and returns when the broker lists it in its group. Otherwise the error matches ErrTopicNotFound,
	// ErrUnauthorized or ErrUnavailable. ctx bounds the start only.
	Subscribe(ctx context.Context, s Subscription, h Handler) (Consumer, error)
}

// TopicKind is the kind of messages of a topic, for the broker's tools.
type TopicKind string

// The kinds of topics that RocketMQ 5 has.
const (
	Normal      TopicKind = "NORMAL"
	FIFO        TopicKind = "FIFO"
	Delay       TopicKind = "DELAY"
	Transaction TopicKind = "TRANSACTION"
)

// Topic describes a topic that is created.
type Topic struct {
	// Name is the topic's name. Required.
	Name string
	// Queues is the number of queues on each broker.
	// Defaults to 8.
	Queues int
	// Kind is the kind of the topic's messages.
	// Defaults to Normal.
	Kind TopicKind
}
