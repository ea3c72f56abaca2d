package rocketmq

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// maxProperties leaves the broker room for its own properties in what a record can hold.
const maxProperties = remoting.MaxProperties - 1024

// properties returns all properties of a message as they go on the wire, or why it can't be sent.
func properties(m broker.Message) (map[string]string, error) {
	if m.Topic == "" || len(m.Topic) > remoting.MaxTopic {
		return nil, fmt.Errorf("%w: topic %s: want 1 to %d bytes", broker.ErrIllegal, printable.Quote(m.Topic, printable.Name), remoting.MaxTopic)
	}
	if len(m.Body) == 0 {
		return nil, fmt.Errorf("%w: body is empty", broker.ErrIllegal)
	}
	p := make(map[string]string, len(m.Properties)+5)
	size := 0
	set := func(name, value string) error {
		if !remoting.ValidProperty(name) || !remoting.ValidProperty(value) {
			return fmt.Errorf("%w: property %s: contains \\x01 or \\x02", broker.ErrIllegal, printable.Quote(name, printable.Name))
		}
		if value != "" { // brokers and clients drop empty ones
			p[name] = value
			size += len(name) + len(value) + 2
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		if broker.Reserved(name) {
			return nil, &broker.ReservedPropertyError{Property: name}
		}
		if name == "" {
			return nil, fmt.Errorf("%w: property without a name", broker.ErrIllegal)
		}
		if err := set(name, m.Properties[name]); err != nil {
			return nil, err
		}
	}
	for _, key := range m.Keys {
		if strings.Contains(key, primitive.PropertyKeySeparator) {
			return nil, fmt.Errorf("%w: key %s: contains a space", broker.ErrIllegal, printable.Quote(key, printable.Name))
		}
	}
	if m.ID == "" {
		m.ID = newMessageID()
	}
	for _, own := range [...][2]string{
		{primitive.PropertyUniqueClientMessageIdKeyIndex, m.ID},
		{primitive.PropertyTags, m.Tag},
		{primitive.PropertyKeys, strings.Join(m.Keys, primitive.PropertyKeySeparator)},
		{primitive.PropertyShardingKey, m.ShardingKey},
	} {
		if err := set(own[0], own[1]); err != nil {
			return nil, err
		}
	}
	if size > maxProperties {
		return nil, fmt.Errorf("%w: properties take %d bytes, want at most %d", broker.ErrTooLarge, size, maxProperties)
	}
	return p, nil
}

// newMessageID draws a unique key. Its length is RocketMQ's own: parts of its tools tell keys from offsets by that.
func newMessageID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Sprintf("draw message id: %v", err)) // the system has no randomness
	}
	return fmt.Sprintf("%X", id[:])
}

// newMessage makes what the client sends. It must be used once only: the client writes into it.
func newMessage(m broker.Message, props map[string]string, q queue) *primitive.Message {
	out := &primitive.Message{
		Topic: m.Topic, Body: m.Body,
		Queue: &primitive.MessageQueue{Topic: m.Topic, BrokerName: q.broker, QueueId: q.id},
	}
	out.WithProperties(props)
	return out
}

// delivery restores a message from its properties as stored. It keeps only what a user may set.
func delivery(topic string, props map[string]string, body []byte) broker.Delivery {
	d := broker.Delivery{Message: broker.Message{
		ID:          props[primitive.PropertyUniqueClientMessageIdKeyIndex],
		Topic:       topic,
		Tag:         props[primitive.PropertyTags],
		Keys:        strings.Fields(props[primitive.PropertyKeys]),
		ShardingKey: props[primitive.PropertyShardingKey],
		Properties:  map[string]string{},
		Body:        body,
	}}
	if topic == discardTopic {
		d.Topic = props[realTopic]
	}
	for name, value := range props {
		if !broker.Reserved(name) {
			d.Properties[name] = value
		}
	}
	return d
}

// backoff is the wait before another try: it doubles from min up to max, and a random part of up to a quarter keeps
// many that wait for the same thing apart.
func backoff(attempt int, min, max time.Duration) time.Duration {
	d := max
	if attempt < 16 && min<<attempt < max {
		d = min << attempt
	}
	return d - rand.N(d/4+1)
}
