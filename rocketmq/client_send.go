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
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// clientSender sends with a producer of rocketmq-client-go.
type clientSender struct {
	client   *Client
	producer rmq.Producer
}

// newClientSender starts a producer of rocketmq-client-go.
func (c *Client) newClientSender(instance string) (*clientSender, error) {
	p, err := rmq.NewProducer(
		producer.WithNsResolver(c.nameServers),
		producer.WithGroupName(c.senderGroup()),
		producer.WithInstanceName(c.senderGroup()+"-"+instance),
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
	return &clientSender{c, p}, nil
}

// close implements sender.
func (s *clientSender) close() error { return s.producer.Shutdown() }

// At the first sends to a topic rocketmq-client-go learns the topic's queues a moment before their brokers' addresses. A send in
// between fails, before anything is sent, and is tried again.
const (
	routeTries = 50
	routePause = 2 * time.Millisecond
)

func isNotRouted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "route info not found")
}

// send implements sender.
func (s *clientSender) send(ctx context.Context, q queue, messages []outgoing) (sent, error) {
	result, err := s.sendSync(ctx, q, messages)
	for try := 0; try < routeTries && isNotRouted(err); try++ {
		if !background.Sleep(ctx, clock.System{}, routePause) {
			return sent{}, err
		}
		result, err = s.sendSync(ctx, q, messages)
	}
	if err != nil {
		return sent{}, err
	}
	reason, known := clientReasons[result.Status]
	if !known {
		return sent{}, fmt.Errorf("%w: rocketmq-client-go returned status %d", broker.ErrUnavailable, result.Status)
	}
	return sent{
		lessSafely: reason,
		receipt: broker.Receipt{
			MessageID: result.MsgID, Broker: result.MessageQueue.BrokerName,
			Queue: result.MessageQueue.QueueId, Offset: result.QueueOffset,
		},
		offsetID: result.OffsetMsgID, transactionID: result.TransactionID,
	}, nil
}

// clientReasons are the reasons of the client's results of messages that were stored.
var clientReasons = map[primitive.SendStatus]StoredReason{
	primitive.SendOK: "", primitive.SendFlushDiskTimeout: FlushTimeout, primitive.SendFlushSlaveTimeout: SlaveTimeout,
	primitive.SendSlaveNotAvailable: SlaveMissing,
}

// sendSync sends once and waits until ctx ends. The client doesn't get ctx: given one that has ended, it writes the request all the
// same, several times, and reports a timeout.
func (s *clientSender) sendSync(ctx context.Context, q queue, messages []outgoing) (*primitive.SendResult, error) {
	type outcome struct {
		result *primitive.SendResult
		err    error
	}
	ended := make(chan outcome, 1)
	sending := s.client.goWork(func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o = outcome{err: printable.Errorf("%w: rocketmq-client-go panicked: %v", broker.ErrUnavailable, p)}
			}
			ended <- o
		}()
		o.result, o.err = s.producer.SendSync(context.WithoutCancel(ctx), clientMessages(q, messages)...)
	})
	if !sending {
		return nil, errClientClosed
	}
	select {
	case o := <-ended:
		return o.result, typedError(o.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no response yet: %w", broker.ErrUnavailable, context.Cause(ctx))
	}
}

// clientMessages returns messages of rocketmq-client-go for a queue. They must be sent once only: the client writes into them.
func clientMessages(q queue, messages []outgoing) []*primitive.Message {
	out := make([]*primitive.Message, len(messages))
	for i, m := range messages {
		out[i] = &primitive.Message{
			Topic: m.topic, Body: m.body,
			Queue: &primitive.MessageQueue{Topic: m.topic, BrokerName: q.broker, QueueId: q.id},
		}
		props := make(map[string]string, len(m.props)+4)
		for name, value := range m.props {
			props[name] = value
		}
		out[i].WithProperties(props)
	}
	return out
}

var clientCode = regexp.MustCompile(`(?s)^CODE: (-?\d+), DESC: (.*)$`)

// typedError gives an error of a send of rocketmq-client-go, which has the broker's response code as text only, a type.
func typedError(err error) error {
	if err == nil {
		return nil
	}
	if m := clientCode.FindStringSubmatch(err.Error()); m != nil {
		if code, convErr := strconv.Atoi(m[1]); convErr == nil {
			return &remoting.ResponseError{Code: remoting.Code(code), Remark: m[2], Request: remoting.SendMessage}
		}
	}
	if errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// queueSelector gives rocketmq-client-go the queue that clientMessages has set.
type queueSelector struct{}

// Select implements producer.QueueSelector.
func (queueSelector) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	if m.Queue == nil && len(queues) > 0 {
		return queues[0]
	}
	return m.Queue
}
