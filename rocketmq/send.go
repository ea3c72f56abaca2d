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
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Send implements broker.Sender.
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

// SendAsync implements broker.Sender. It runs Send in a goroutine of its own: the client's own asynchronous send
// crashes the process when an answer is late.
func (c *Client) SendAsync(ctx context.Context, m broker.Message, done func(broker.Receipt, error)) error {
	select {
	case c.async <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !c.begin() {
		<-c.async
		return errClientClosed
	}
	go func() {
		defer c.work.Done()
		receipt, err := c.Send(ctx, m)
		<-c.async
		if ended := guard.Run(func() { done(receipt, err) }); ended != nil {
			c.sayEnded("SendAsync's done", ended, "topic", m.Topic)
		}
	}()
	return nil
}

// send sends one message. own are properties that only this package may set.
func (c *Client) send(ctx context.Context, m broker.Message, own map[string]string) (*primitive.SendResult, error) {
	m.Topic = c.config.wire(m.Topic)
	props, err := properties(m)
	if err != nil {
		return nil, printable.Errorf("send to topic %s: %w", m.Topic, err)
	}
	for name, value := range own {
		props[name] = value
	}
	route, err := c.routes.of(ctx, m.Topic)
	if err != nil {
		return nil, err
	}
	q := route.pick(m.ShardingKey, c.up)
	return c.sendTo(ctx, q, newMessage(m, props, q))
}

// sendTo sends messages of one topic as one request to one queue.
func (c *Client) sendTo(ctx context.Context, q queue, messages ...*primitive.Message) (*primitive.SendResult, error) {
	topic := messages[0].Topic
	fail := func(err error) (*primitive.SendResult, error) {
		if errors.Is(err, broker.ErrTopicNotFound) {
			c.routes.forget(topic)
		}
		return nil, printable.Errorf("send to topic %s on broker %s: %w", topic, q.broker, err)
	}
	// The client connects under a lock that stops all its sends: a broker that doesn't answer us is not tried.
	if l := c.link(q.broker); l != nil {
		if err := l.down(); err != nil {
			return nil, printable.Errorf("send to topic %s: %w", topic, err)
		}
	}
	result, err := c.sendSync(ctx, messages)
	for try := 0; try < routeTries && notRouted(err); try++ {
		select {
		case <-ctx.Done():
			return fail(err)
		case <-time.After(routePause):
		}
		result, err = c.sendSync(ctx, messages)
	}
	if err != nil {
		return fail(err)
	}
	if result.Status != primitive.SendOK {
		return fail(fmt.Errorf("%w: stored, but not as safely as the broker is set to (status %d)", broker.ErrUnavailable, result.Status))
	}
	return result, nil
}

// Among the first sends to a topic the client learns its queues a moment before it learns their broker's address. Whoever
// comes in between is told that there is no route, before anything is sent.
const (
	routeTries = 50
	routePause = 2 * time.Millisecond
)

func notRouted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "route info not found")
}

// sendSync waits for the client until ctx ends. The client must not see ctx: with one that has ended it writes the
// request all the same, several times, and calls it a timeout.
func (c *Client) sendSync(ctx context.Context, messages []*primitive.Message) (*primitive.SendResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	producer := c.sender()
	if producer == nil {
		return nil, fmt.Errorf("%w: no broker was reached yet", broker.ErrUnavailable)
	}
	if !c.begin() {
		return nil, errClientClosed
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.SendTimeout)
	defer cancel()
	type answer struct {
		result *primitive.SendResult
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		defer c.work.Done()
		var a answer
		defer func() {
			if p := recover(); p != nil {
				a = answer{err: printable.Errorf("%w: client panicked: %v", broker.ErrUnavailable, p)}
			}
			answered <- a
		}()
		a.result, a.err = producer.SendSync(context.WithoutCancel(ctx), messages...)
	}()
	select {
	case a := <-answered:
		return a.result, clientError(a.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no answer yet: %w", broker.ErrUnavailable, context.Cause(ctx))
	}
}

var clientCode = regexp.MustCompile(`(?s)^CODE: (-?\d+), DESC: (.*)$`)

// clientError gives an error of the client its type: it hands out the broker's code as text only.
func clientError(err error) error {
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

// queueSelector takes the queue that was chosen by routes.
type queueSelector struct{}

func (queueSelector) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	if m.Queue == nil && len(queues) > 0 {
		return queues[0]
	}
	return m.Queue
}

func (c *Client) newProducer(instance string) (rmq.Producer, error) {
	p, err := rmq.NewProducer(
		producer.WithNsResolver(c.names),
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
