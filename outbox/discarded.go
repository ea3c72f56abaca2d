package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// DiscardReader is implemented by a Broker that can report the half messages that it gave up because no process responded to its
// check-backs. *rocketmq.Client implements it.
type DiscardReader interface {
	// SubscribeDiscarded subscribes to the half messages that the broker gave up, as broker.Subscriber's Subscribe does. It
	// returns broker.ErrTopicNotFound until the broker has given up a first one.
	SubscribeDiscarded(ctx context.Context, group string, h broker.Handler) (broker.Consumer, error)
}

// DiscardedInfo is the argument of Listener.Discarded.
type DiscardedInfo struct {
	EventID uuid.UUID     // the id of the event that the half message carries
	Topic   string        // the topic of the event
	Type    string        // the type of the event
	Age     time.Duration // since the half message was sent
}

// discardReporter reports the half messages of this outbox that the broker gave up, because no process responded to its
// check-backs for long. It only reports: if their transactions committed, the sweep has sent the events.
type discardReporter struct {
	outbox   *Outbox
	database string
	subscriber
}

// discardRetry is the pause before the next attempt to subscribe. Until the broker has given up a half message there is
// nothing to subscribe to.
const discardRetry = 30 * time.Second

// startDiscardReporter returns nil if the broker is no DiscardReader, or if the configuration turns the reporter off.
func (o *Outbox) startDiscardReporter(database string) *discardReporter {
	reader, ok := o.config.Broker.(DiscardReader)
	if !ok || o.config.IgnoreDiscarded {
		return nil
	}
	d := &discardReporter{outbox: o, database: database}
	logged := false
	d.subscriber = subscriber{
		outbox: o, what: "discarded half messages", retry: discardRetry,
		subscribe: func(ctx context.Context) (broker.Consumer, error) {
			return reader.SubscribeDiscarded(ctx, o.config.Group+discardedSuffix, d.receive)
		},
		failed: func(err error) {
			if logged || errors.Is(err, broker.ErrTopicNotFound) || errors.Is(err, broker.ErrUnavailable) {
				return
			}
			logged = true
			o.log.Warn("discarded half messages can't be received, so none will be reported; it is retried", keyError, err, keyRetryAfter, discardRetry)
		},
	}
	d.start()
	return d
}

func (d *discardReporter) stop(ctx context.Context) {
	if d != nil {
		d.subscriber.stop(ctx)
	}
}

// receive acknowledges every message, since those of other services and other programs are of no use here.
func (d *discardReporter) receive(_ context.Context, m broker.Delivery) error {
	o := d.outbox
	e, err := wire.EventOf(m)
	if err != nil || e.Source != o.config.Source || e.Database != d.database {
		return nil //nolint:nilerr // not an event of this outbox
	}
	info := DiscardedInfo{EventID: e.ID, Topic: e.Topic, Type: e.Type, Age: o.config.Clock.Now().Sub(m.Born)}
	o.log.Error("the broker gave up a half message because no process responded to its check-backs: if the transaction committed, the sweep sends the event; find out why no process of the producer group responded",
		keyEvent, info.EventID, keyTopic, info.Topic, keyType, info.Type, keyAge, info.Age)
	o.listener.Discarded(info)
	return nil
}
