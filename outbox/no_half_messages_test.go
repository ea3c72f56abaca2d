package outbox_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/poll"
)

// plainBroker is a broker without half messages, at which new groups begin at the oldest message.
type plainBroker struct {
	*logicBroker
	mu         sync.Mutex
	subscribed []broker.Subscription
}

func (b *plainBroker) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return nil, broker.ErrNoHalfMessages
}

func (b *plainBroker) Subscribe(_ context.Context, s broker.Subscription, _ broker.Handler) (broker.Consumer, error) {
	if !s.Begin.Oldest() {
		return nil, broker.ErrBeginsOldest
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribed = append(b.subscribed, s)
	return nothing{}, nil
}

func (b *plainBroker) subscriptions() []broker.Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subscribed
}

func (b *plainBroker) SubscribeDiscarded(context.Context, string, broker.Handler) (broker.Consumer, error) {
	panic("there are no half messages that could be discarded")
}

// nothing is a consumer that gets nothing.
type nothing struct{}

func (nothing) Stop(context.Context) error { return nil }
func (nothing) Err() error                 { return nil }

// With a broker without half messages events are sent after their commit, and missing-events requests are received from the oldest one on.
func TestBrokerWithoutHalfMessages(t *testing.T) {
	t.Parallel()
	j := &journal{}
	var plain *plainBroker
	b := setup(t, func(c *outbox.Config) {
		plain = &plainBroker{logicBroker: c.Broker.(*logicBroker)}
		c.Broker, c.Listener = plain, j.listener()
	})
	if err := b.credit(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event is sent", func() bool { return len(plain.events()) == 1 })
	if changes := j.changes(); len(changes) != 1 || changes[0].To != outbox.Relay || changes[0].Reason != outbox.PathPinned {
		t.Errorf("paths %v", changes)
	}
	poll.Until(t, "requests are received", func() bool { return len(plain.subscriptions()) == 1 })
	if s := plain.subscriptions()[0]; !s.Begin.Oldest() || s.Topics[0] != rocketflow.MissingEventsTopic {
		t.Errorf("subscription %+v", s)
	}
}

// Half messages that were asked for are refused at the start.
func TestHalfMessagesAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	config := outbox.Config{Pool: b.pool, Source: "bank", Schema: b.schema}
	config.Broker, config.Path = &plainBroker{logicBroker: newLogicBroker()}, outbox.HalfMessages
	o, err := outbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	var field *rocketflow.FieldError
	if err := o.Start(t.Context()); !errors.As(err, &field) || field.Field != "outbox.Config.Path" || !errors.Is(err, broker.ErrNoHalfMessages) {
		t.Errorf("got %v", err)
	}
}
