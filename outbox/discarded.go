package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// DiscardReader is what a Broker has that tells which half messages it gave up because nobody answered its checks.
// *rocketmq.Client is one.
type DiscardReader interface {
	// SubscribeDiscarded is as broker.Subscriber's Subscribe. It returns broker.ErrTopicNotFound as long as none was given up.
	SubscribeDiscarded(ctx context.Context, group string, h broker.Handler) (broker.Consumer, error)
}

// DiscardedInfo is what Listener.Discarded gets.
type DiscardedInfo struct {
	EventID uuid.UUID
	Topic   string
	Type    string
	Age     time.Duration // since the half message was sent
}

// discards reports the half messages of this outbox that the broker gave up. It only reports: the sweep has sent their
// events long since, if their transactions committed. That it happens at all means that nobody answered checks for long.
type discards struct {
	outbox   *Outbox
	database string
	reader   DiscardReader
	cancel   context.CancelFunc
	done     chan struct{}
}

// discardRetry is the pause before the broker is asked again whether it has ever given up a half message.
const discardRetry = 30 * time.Second

func (o *Outbox) startDiscards(database string) *discards {
	ctx, cancel := context.WithCancel(context.Background())
	d := &discards{outbox: o, database: database, cancel: cancel, done: make(chan struct{})}
	d.reader, _ = o.config.Broker.(DiscardReader)
	if d.reader == nil || o.config.IgnoreDiscarded {
		close(d.done)
		return d
	}
	go d.run(ctx)
	return d
}

func (d *discards) stop(ctx context.Context) {
	d.cancel()
	select {
	case <-d.done:
	case <-ctx.Done():
	}
}

func (d *discards) run(ctx context.Context) {
	defer close(d.done)
	o := d.outbox
	said := false
	for {
		next, giveUp := o.config.Clock.After(discardRetry)
		consumer, err := d.reader.SubscribeDiscarded(ctx, o.config.Group+"_discarded", d.receive)
		switch {
		case err == nil:
			giveUp()
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := consumer.Stop(stop); err != nil {
				o.log.Warn("can't stop to listen for discarded half messages", "error", err)
			}
			return
		case errors.Is(err, broker.ErrTopicNotFound), errors.Is(err, broker.ErrUnavailable), ctx.Err() != nil:
		case !said:
			said = true
			o.log.Warn("can't listen for discarded half messages", "error", err, "after", discardRetry)
		}
		select {
		case <-next:
		case <-ctx.Done():
			giveUp()
			return
		}
	}
}

// receive settles everything: there are half messages of others, and of other tools.
func (d *discards) receive(_ context.Context, m broker.Delivery) error {
	o := d.outbox
	e, err := wire.EventOf(m)
	if err != nil || e.Source != o.config.Source || e.Database != d.database {
		return nil //nolint:nilerr // it is nobody's event
	}
	info := DiscardedInfo{EventID: e.ID, Topic: e.Topic, Type: e.Type, Age: o.config.Clock.Now().Sub(m.Born)}
	o.log.Error("the broker gave up a half message: nobody answered its checks. If its transaction committed, the sweep sends the event",
		"event_id", info.EventID, "topic", info.Topic, "type", info.Type, "age", info.Age)
	o.listener.Discarded(info)
	return nil
}
