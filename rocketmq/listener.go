package rocketmq

import (
	"errors"
	"log/slog"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
)

// Listener has functions that a Client calls when something happens, for metrics and tests. A nil function is not called. They are called
// concurrently and must return quickly; a panic ends the one call and is logged. The names of groups and topics that they get are those on
// the wire, with Config.Namespace.
type Listener struct {
	// BrokerUp is called when the client's own connection to a broker is up, at the start and after each loss.
	BrokerUp func(BrokerInfo)
	// BrokerDown is called when that connection is lost.
	BrokerDown func(BrokerInfo)
	// CheckAnswered is called when the Checker of a transaction producer has returned and its decision was sent to the broker.
	CheckAnswered func(CheckInfo)
	// CheckDropped is called when a check is dropped because too many wait: the broker repeats it.
	CheckDropped func(CheckInfo)
	// HandlerFailed is called when a handler has not settled a message: the message is held and the handler called again.
	HandlerFailed func(HandlerInfo)
	// StoredLessSafely is called when a broker has stored messages, but not flushed or replicated them as it is set to: a crash of the
	// broker could lose them. See Config.RequireReplication.
	StoredLessSafely func(StoredInfo)
	// ConsumerRestarted is called when a consumer that got no messages was replaced by a new one, such as after a broker's restart.
	ConsumerRestarted func(ConsumerInfo)
}

// BrokerInfo describes the client's own connection to a broker.
type BrokerInfo struct {
	Broker, Address string // the broker's name, and its address as host:port
	Err             error  // why the connection is down; nil: it is up
}

// CheckInfo describes a check of a half message.
type CheckInfo struct {
	Group, Topic, MessageID string          // the producer group, and the topic and unique key of the half message
	Decision                broker.Decision // what the Checker decided
	Attempt                 int             // counts the checks of the half message, beginning with 1
	Took                    time.Duration   // from the check's arrival at the Checker to the broker's response
	Err                     error           // why the decision was not taken; nil: the broker has taken it, or it is Unknown
}

// HandlerInfo describes a call of a handler that has not settled a message.
type HandlerInfo struct {
	Group, Topic, MessageID string // the consumer group, and the topic and unique key of the message
	Attempt                 int    // as in broker.Delivery
	Err                     error  // the handler's error
}

// StoredInfo describes messages that a broker has stored less safely than it is set to.
type StoredInfo struct {
	Broker, Topic string       // the broker's name, and the topic of the messages
	Messages      int          // the number of messages
	Reason        StoredReason // what the broker didn't wait for
}

// StoredReason says what a broker didn't wait for.
type StoredReason string

const (
	// FlushTimeout means that the disk was too slow.
	FlushTimeout StoredReason = "flush timeout"
	// SlaveTimeout means that a slave was too slow.
	SlaveTimeout StoredReason = "slave timeout"
	// SlaveMissing means that there is no slave, or too few.
	SlaveMissing StoredReason = "slave missing"
)

// ConsumerInfo describes a consumer that was restarted.
type ConsumerInfo struct {
	Group  string        // the consumer group
	Topics []string      // the topics that it reads
	Reason RestartReason // why it was restarted
	Took   time.Duration // from the first attempt to the new consumer's start
}

// guarded returns a Listener whose functions are never nil, and survive panics of those of l.
func (l *Listener) guarded(log *slog.Logger) *Listener {
	var given Listener
	if l != nil {
		given = *l
	}
	return &Listener{
		BrokerUp:          guarded(log, "BrokerUp", given.BrokerUp),
		BrokerDown:        guarded(log, "BrokerDown", given.BrokerDown),
		CheckAnswered:     guarded(log, "CheckAnswered", given.CheckAnswered),
		CheckDropped:      guarded(log, "CheckDropped", given.CheckDropped),
		HandlerFailed:     guarded(log, "HandlerFailed", given.HandlerFailed),
		StoredLessSafely:  guarded(log, "StoredLessSafely", given.StoredLessSafely),
		ConsumerRestarted: guarded(log, "ConsumerRestarted", given.ConsumerRestarted),
	}
}

func guarded[I any](log *slog.Logger, name string, fn func(I)) func(I) {
	if fn == nil {
		return func(I) {}
	}
	return func(i I) {
		if ended := guard.Run(func() { fn(i) }); ended != nil {
			logPanic(log, "a listener", ended, keyName, name)
		}
	}
}

// logPanic logs that a function of the application panicked or called runtime.Goexit.
func logPanic(log *slog.Logger, what string, ended error, args ...any) {
	args = append([]any{keyWhat, what}, append(args, keyError, ended)...)
	var p *guard.PanicError
	if errors.As(ended, &p) {
		args = append(args, keyStack, string(p.Stack))
	}
	log.Error("a function of the application panicked or ended its goroutine; only this call fails: fix the function", args...)
}

func (c *Client) logPanic(what string, ended error, args ...any) {
	logPanic(c.log, what, ended, args...)
}

// Tee returns a Listener that calls the functions of all listeners, in order. Nil listeners are skipped.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		listen.Tee(&all.BrokerUp, l.BrokerUp)
		listen.Tee(&all.BrokerDown, l.BrokerDown)
		listen.Tee(&all.CheckAnswered, l.CheckAnswered)
		listen.Tee(&all.CheckDropped, l.CheckDropped)
		listen.Tee(&all.HandlerFailed, l.HandlerFailed)
		listen.Tee(&all.StoredLessSafely, l.StoredLessSafely)
		listen.Tee(&all.ConsumerRestarted, l.ConsumerRestarted)
	}
	return &all
}
