package rocketmq

import (
	"context"
	"errors"
	"fmt"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Send implements [broker.Sender].
func (c *Client) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	result, err := c.send(ctx, m, nil)
	return result.receipt, err
}

// SendAsync implements [broker.Sender]. At most Config.MaxAsync sends are in flight at once.
func (c *Client) SendAsync(ctx context.Context, m broker.Message, done func(broker.Receipt, error)) error {
	select {
	case c.asyncSlots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Send in a goroutine, because rocketmq-client-go's own asynchronous send crashes the process when a response is late.
	sending := c.goWork(func() {
		receipt, err := c.Send(ctx, m)
		<-c.asyncSlots
		if ended := guard.Run(func() { done(receipt, err) }); ended != nil {
			c.logPanic("the done function of SendAsync", ended, keyTopic, m.Topic)
		}
	})
	if !sending {
		<-c.asyncSlots
		return errClientClosed
	}
	return nil
}

// send sends one message. own are properties that only this package may set.
func (c *Client) send(ctx context.Context, m broker.Message, own map[string]string) (sent, error) {
	m.Topic = c.config.wireName(m.Topic)
	props, err := c.config.wireProperties(m)
	if err == nil {
		err = c.config.Profile.checkBody(bodyKind(own != nil), len(m.Body))
	}
	if err != nil {
		return sent{}, printable.Errorf("send to topic %s: %w", m.Topic, err)
	}
	for name, value := range own {
		props[name] = value
	}
	route, err := c.routes.get(ctx, m.Topic)
	if err != nil {
		return sent{}, printable.Errorf("send: %w", err)
	}
	return c.sendTo(ctx, route.pick(m.ShardingKey, c.isUp), outgoing{m.Topic, m.Body, props})
}

// sendTo sends messages of one topic in one request to one queue.
func (c *Client) sendTo(ctx context.Context, q queue, messages ...outgoing) (sent, error) {
	topic := messages[0].topic
	fail := func(err error) (sent, error) {
		if errors.Is(err, broker.ErrTopicNotFound) {
			if c.createAgain(ctx, topic, c.brokerConn(q.broker)) {
				return sent{}, printable.Errorf("send to topic %s: %w: broker %s had forgotten the topic, which was created again", topic, broker.ErrUnavailable, q.broker)
			}
			c.routes.forget(topic)
			err = c.explainNotFound(topic, err)
		}
		return sent{}, printable.Errorf("send to topic %s on broker %s: %w", topic, q.broker, err)
	}
	// rocketmq-client-go connects under a lock that stops all its sends, so nothing is sent to a broker that is known to be down.
	if b := c.brokerConn(q.broker); b != nil {
		if err := b.down(); err != nil {
			return sent{}, printable.Errorf("send to topic %s: %w", topic, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	transport := c.currentSender()
	if transport == nil {
		return fail(fmt.Errorf("%w: no broker was reached yet", broker.ErrUnavailable))
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.SendTimeout)
	defer cancel()
	result, err := transport.send(ctx, q, messages)
	if err != nil {
		return fail(err)
	}
	if result.lessSafely == "" {
		return result, nil
	}
	c.listener.StoredLessSafely(StoredInfo{Broker: q.broker, Topic: topic, Messages: len(messages), Reason: result.lessSafely})
	if c.config.RequireReplication {
		return fail(fmt.Errorf("%w: the message is stored, but not as safely as the broker is set to: %s", broker.ErrUnavailable, result.lessSafely))
	}
	c.log.Warn("a broker stores messages, but not as safely as it is set to: if it crashes, some may be lost; check its disk and its slaves",
		keyBroker, q.broker, keyReason, string(result.lessSafely))
	return result, nil
}
