package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// deliveryOf returns the delivery of a message whose body, if it is packed, may have maxBody bytes when it is decompressed.
func deliveryOf(ctx context.Context, m *primitive.MessageExt, packed bool, maxBody int) broker.Delivery {
	props := m.GetProperties()
	body, err := m.Body, error(nil)
	if packed {
		body, err = bodyOf(m.SysFlag, m.Body, maxBody)
	}
	d := newDelivery(m.Topic, props, body)
	d.Offset, d.Born, d.Stored = m.QueueOffset, remoting.Instant(m.BornTimestamp), remoting.Instant(m.StoreTimestamp)
	d.Attempt = attemptOf(int(m.ReconsumeTimes), props)
	d.Unreadable = err
	if m.Queue != nil {
		d.Queue = m.Queue.QueueId
	}
	if in, ok := primitive.GetConsumerCtx(ctx); ok && in.MQ != nil {
		d.Broker = in.MQ.BrokerName
	}
	return d
}

// isPacked reports whether the body is compressed, as the broker stores it: the client decompresses only what is compressed with zlib, and
// leaves alone without an error what it can't decompress.
func isPacked(m *primitive.MessageExt) bool {
	return m.SysFlag&remoting.FlagCompressed != 0 && uint32(m.BodyCRC) == crc32.ChecksumIEEE(m.Body)&math.MaxInt32
}

// propertiesOfClient are those that the client adds to a message that it has received.
var propertiesOfClient = map[string]bool{
	primitive.PropertyMinOffset: true, primitive.PropertyMaxOffset: true, primitive.PropertyConsumeStartTime: true,
}

// hidesAKey reports whether the message may have a unique key that the client doesn't show: brokers such as 4.9.7 and 5.3.3 append the
// properties of a batch to those of each member, and of a name that occurs twice the client keeps the last value, the batch's key. The
// stored message is then longer than its parts. Members of batches are never compressed, and what was sent back to the broker has each name
// once.
func hidesAKey(m *primitive.MessageExt) bool {
	if m.SysFlag&remoting.FlagCompressed != 0 || m.ReconsumeTimes > 0 {
		return false
	}
	known := map[string]string{}
	for name, value := range m.GetProperties() {
		if !propertiesOfClient[name] {
			known[name] = value
		}
	}
	whole := &remoting.Record{SysFlag: m.SysFlag, Topic: m.Topic, Properties: known, Body: m.Body}
	return int(m.StoreSize) >= whole.Size()+len(remoting.PropertyUniqueKey)
}

// callRevealed calls the handler once for a message that hides its key.
func (k *consumer) callRevealed(ctx context.Context, d broker.Delivery) error {
	if err := k.revealKey(ctx, &d); err != nil {
		return err
	}
	return k.call(ctx, d)
}

// revealKey sets the unique key of a message that hides it, which needs a request to the broker.
func (k *consumer) revealKey(ctx context.Context, d *broker.Delivery) error {
	b := k.client.brokerConn(d.Broker)
	if b == nil {
		return fmt.Errorf("%w: broker %s isn't connected", broker.ErrUnavailable, d.Broker)
	}
	ctx, cancel := context.WithTimeout(ctx, revealTimeout)
	defer cancel()
	p, err := k.pullAsTool(ctx, b, d.Topic, d.Queue, d.Offset)
	switch {
	case err != nil:
		return fmt.Errorf("read a member of a batch again, for its key: %w", err)
	case p.record == nil || p.record.QueueOffset != d.Offset || !p.record.Born.Equal(d.Born):
		// Nothing tells whether it was handled before, and under the batch's key it would be taken for another member.
		d.ID, d.Unreadable = "", errors.New("a member of a batch whose own unique key can't be read: its broker has deleted the message meanwhile")
	default:
		d.ID = p.record.Properties[remoting.PropertyUniqueKey]
	}
	return nil
}

const revealTimeout = 3 * time.Second
