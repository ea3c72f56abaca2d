package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Send implements [broker.Sender].
func (c *Client) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	result, err := c.send(ctx, m, nil)
	if err != nil {
		return broker.Receipt{}, err
	}
	return broker.Receipt{
		MessageID: result.MsgID, Broker: result.MessageQueue.BrokerName,
		Queue: result.MessageQueue.QueueId, Offset: result.QueueOffset,
	}, nil
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
func (c *Client) send(ctx context.Context, m broker.Message, own map[string]string) (*primitive.SendResult, error) {
	m.Topic = c.config.wireName(m.Topic)
	props, err := wireProperties(m)
	if err != nil {
		return nil, printable.Errorf("send to topic %s: %w", m.Topic, err)
	}
	for name, value := range own {
		props[name] = value
	}
	route, err := c.routes.get(ctx, m.Topic)
	if err != nil {
		return nil, printable.Errorf("send: %w", err)
	}
	q := route.pick(m.ShardingKey, c.isUp)
	return c.sendTo(ctx, q, newMessage(m, props, q))
}

// sendTo sends messages of one topic in one request to one queue.
func (c *Client) sendTo(ctx context.Context, q queue, messages ...*primitive.Message) (*primitive.SendResult, error) {
	topic := messages[0].Topic
	fail := func(err error) (*primitive.SendResult, error) {
		if errors.Is(err, broker.ErrTopicNotFound) {
			c.routes.forget(topic)
			err = c.explainNotFound(topic, err)
		}
		return nil, printable.Errorf("send to topic %s on broker %s: %w", topic, q.broker, err)
	}
	// rocketmq-client-go connects under a lock that stops all its sends, so nothing is sent to a broker that is known to be down.
	if b := c.brokerConn(q.broker); b != nil {
		if err := b.down(); err != nil {
			return nil, printable.Errorf("send to topic %s: %w", topic, err)
		}
	}
	result, err := c.sendSync(ctx, messages)
	for try := 0; try < routeTries && isNotRouted(err); try++ {
		if !background.Sleep(ctx, clock.System{}, routePause) {
			return fail(err)
		}
		result, err = c.sendSync(ctx, messages)
	}
	if err != nil {
		return fail(err)
	}
	if result.Status != primitive.SendOK {
		return fail(fmt.Errorf("%w: the message is stored, but not flushed or replicated as the broker is set to (status %d)", broker.ErrUnavailable, result.Status))
	}
	return result, nil
}

// At the first sends to a topic rocketmq-client-go learns the topic's queues a moment before their brokers' addresses. A send in
// between fails, before anything is sent, and is tried again.
const (
	routeTries = 50
	routePause = 2 * time.Millisecond
)

func isNotRouted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "route info not found")
}

// sendSync sends with rocketmq-client-go and waits until ctx ends. The client doesn't get ctx: given one that has ended, it writes
// the request all the same, several times, and reports a timeout.
func (c *Client) sendSync(ctx context.Context, messages []*primitive.Message) (*primitive.SendResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	producer := c.currentProducer()
	if producer == nil {
		return nil, fmt.Errorf("%w: no broker was reached yet", broker.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.SendTimeout)
	defer cancel()
	type outcome struct {
		result *primitive.SendResult
		err    error
	}
	sent := make(chan outcome, 1)
	sending := c.goWork(func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o = outcome{err: printable.Errorf("%w: rocketmq-client-go panicked: %v", broker.ErrUnavailable, p)}
			}
			sent <- o
		}()
		o.result, o.err = producer.SendSync(context.WithoutCancel(ctx), messages...)
	})
	if !sending {
		return nil, errClientClosed
	}
	select {
	case o := <-sent:
		return o.result, typedError(o.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no response yet: %w", broker.ErrUnavailable, context.Cause(ctx))
	}
}

var clientCode = regexp.MustCompile(`(?s)^CODE: (-?\d+), DESC: (.*)$`)

// typedError gives an error of rocketmq-client-go, which has the broker's response code as text only, a type.
func typedError(err error) error {
	if err == nil {
		return nil
	}
	if m := clientCode.FindStringSubmatch(err.Error()); m != nil {
		if code, convErr := strconv.Atoi(m[1]); convErr == nil {
			return &remoting.ResponseError{Code: remoting.Code(code), Remark: m[2]}
		}
	}
	if errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// queueSelector gives rocketmq-client-go the queue that newMessage has set.
type queueSelector struct{}

// Select implements producer.QueueSelector.
func (queueSelector) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	if m.Queue == nil && len(queues) > 0 {
		return queues[0]
	}
	return m.Queue
}

func (c *Client) newProducer(instance string) (rmq.Producer, error) {
	p, err := rmq.NewProducer(
		producer.WithNsResolver(c.nameServers),
		producer.WithGroupName(c.config.Service+"-sender"),
		producer.WithInstanceName(c.config.Service+"-sender-"+instance),
		producer.WithRetry(0),
		producer.WithQueueSelector(queueSelector{}),
		producer.WithCredentials(primitive.Credentials{AccessKey: c.config.AccessKey, SecretKey: c.config.SecretKey}),
	)
	if err != nil {
		return nil, fmt.Errorf("create producer: %w", err)
	}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("start producer: %w", err)
	}
	return p, nil
}
