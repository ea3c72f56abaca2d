package rocketmq

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	// maxRequest is the size of the largest request that brokers read with default settings, less room for its header: they close
	// the connection, which other sends use, when a larger one begins.
	maxRequest = 16<<20 - 64<<10
	// compressAbove is the size of bodies, in bytes, above which they are sent compressed, as by RocketMQ's own clients. Members of
	// a batch are never compressed.
	compressAbove = 4096
)

// ownSender sends through the client's own connections to the brokers.
type ownSender struct {
	client *Client
}

// close implements sender.
func (*ownSender) close() error { return nil }

// send implements sender.
func (s *ownSender) send(ctx context.Context, q queue, messages []outgoing) (sent, error) {
	if !s.client.beginSend() {
		return sent{}, errClientClosed
	}
	defer s.client.sends.Done()
	b := s.client.brokerConn(q.broker)
	if b == nil {
		return sent{}, printable.Errorf("%w: no name server lists broker %s", broker.ErrUnavailable, q.broker)
	}
	request, err := s.request(q, messages)
	if err != nil {
		return sent{}, err
	}
	response, err := b.call(ctx, request)
	var reason StoredReason
	var refused *remoting.ResponseError
	if errors.As(err, &refused) {
		reason = storedReasons[refused.Code]
	}
	if err != nil && reason == "" {
		return sent{}, err
	}
	result := sent{
		lessSafely: reason,
		receipt:    broker.Receipt{MessageID: messages[0].props[primitive.PropertyUniqueClientMessageIdKeyIndex], Broker: q.broker},
		offsetID:   response.Ext["msgId"], transactionID: response.Ext["transactionId"],
	}
	var badQueue, badOffset error
	result.receipt.Queue, badQueue = strconv.Atoi(response.Ext["queueId"])
	result.receipt.Offset, badOffset = strconv.ParseInt(response.Ext["queueOffset"], 10, 64)
	if badQueue != nil || badOffset != nil || result.receipt.Queue < 0 || result.receipt.Offset < 0 {
		return sent{}, printable.Errorf("%w: %w response: queue %.40q, offset %.40q", broker.ErrUnavailable, remoting.ErrMalformed,
			response.Ext["queueId"], response.Ext["queueOffset"])
	}
	return result, nil
}

// storedReasons are the reasons of responses to messages that were stored.
var storedReasons = map[remoting.Code]StoredReason{
	remoting.FlushDiskTimeout: FlushTimeout, remoting.FlushSlaveTimeout: SlaveTimeout, remoting.SlaveNotAvailable: SlaveMissing,
}

// request returns the request that sends messages to a queue.
func (s *ownSender) request(q queue, messages []outgoing) (*remoting.Command, error) {
	first := messages[0]
	code, batch, flag := remoting.SendMessageV2, "false", 0
	var props string
	var body []byte
	if len(messages) == 1 {
		props, body = remoting.EncodeProperties(first.props), first.body
		if len(body) > compressAbove {
			if compressed, smaller := remoting.Compress(body); smaller {
				body, flag = compressed, remoting.FlagCompressed
			}
		}
		if first.props[primitive.PropertyTransactionPrepared] != "" {
			flag |= remoting.TransactionPrepared
		}
	} else {
		code, batch = remoting.SendBatchMessage, "true"
		size := 0
		for _, m := range messages {
			size += len(m.body)
			for name, value := range m.props {
				size += len(name) + len(value) + 2
			}
			size += remoting.BatchOverhead
		}
		body = make([]byte, 0, size)
		for _, m := range messages {
			body = remoting.AppendBatchMember(body, m.props, m.body)
		}
	}
	if len(body)+len(props) > maxRequest {
		return nil, printable.Errorf("%w: %d bytes, want at most %d", broker.ErrTooLarge, len(body)+len(props), maxRequest)
	}
	return &remoting.Command{Code: code, Body: body, Ext: map[string]string{
		"a": s.client.senderGroupOf(first),
		"b": first.topic,
		"c": remoting.DefaultTopic, "d": "4", // for brokers that create missing topics
		"e": strconv.Itoa(q.id),
		"f": strconv.Itoa(flag),
		"g": strconv.FormatInt(time.Now().UnixMilli(), 10),
		"h": "0", // the message's flag, which is the application's
		"i": props,
		"j": "0", "k": "false", "l": "0", // redeliveries, unit mode, and the most redeliveries
		"m": batch,
		"n": q.broker,
	}}, nil
}

// senderGroup returns the producer group of messages that aren't half messages.
func (c *Client) senderGroup() string { return c.config.Service + "-sender" }

// senderGroupOf returns the producer group of a message.
func (c *Client) senderGroupOf(m outgoing) string {
	if group := m.props[primitive.PropertyProducerGroup]; group != "" {
		return group
	}
	return c.senderGroup()
}

// beginSend returns false when the client is closed. Otherwise Close waits until the caller calls sends.Done.
func (c *Client) beginSend() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.sends.Add(1)
	return true
}
