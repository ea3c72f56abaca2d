package rocketmq

import (
	"context"

	"github.com/rocketflow/rocketflow/broker"
)

// Transport is how a Client sends messages and consumes. Everything else, such as the ends of half messages, checks, routes and
// topics, goes through the driver's own connections with either. Processes with different transports can share consumer groups and
// producer groups.
type Transport int

const (
	// Own sends and consumes through connections of the driver itself, without rocketmq-client-go: it reads bodies of every
	// compression, bounds what it reads, has no data races, consumes again at once after a broker's restart, and leaves a group
	// at once when a consumer stops.
	Own Transport = iota
	// ClientGo sends and consumes with rocketmq-client-go. The package comment lists what the driver does about its problems.
	ClientGo
)

// String returns "rocketmq-client-go" or "own".
func (t Transport) String() string {
	if t == Own {
		return "own"
	}
	return "rocketmq-client-go"
}

// sender sends messages by one transport. The context that it gets has a deadline.
type sender interface {
	// send sends messages of one topic in one request to one queue. More than one message must not be half messages.
	send(ctx context.Context, q queue, messages []outgoing) (sent, error)
	// close is called when no send is in progress.
	close() error
}

// outgoing is a message that is sent, with all of its properties on the wire.
type outgoing struct {
	topic string
	body  []byte
	props map[string]string
}

// sent is the broker's response to a send.
type sent struct {
	receipt       broker.Receipt // its MessageID is that of the first message
	offsetID      string         // names the place in the broker's commit log, see remoting.ParseOffsetID
	transactionID string
	lessSafely    StoredReason // empty: stored as the broker is set to
}

// instance is a running consumer of a subscription, by one transport.
type instance interface {
	// stop takes no more messages, waits for running handlers until ctx ends, stores the offsets, and leaves the group.
	stop(ctx context.Context) error
	// id returns the client id under which brokers list the instance, or a part of it that no other client id has.
	id() string
	// err returns why queues aren't read at present, or nil.
	err() error
	// register registers the instance at the brokers again, because none lists it. It returns false if that needs a restart.
	register(ctx context.Context) bool
	// brokersChanged has the instance look again where the brokers of its topics are.
	brokersChanged()
}
