package rocketmq

import (
	"cmp"
	"errors"
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

// maxProperties is the size of the largest properties that are sent: what a record can hold, less room for the broker's own.
const maxProperties = remoting.MaxProperties - 1024

// wireProperties returns all properties of a message on the wire: the user's and those that stand for its other fields. The error
// matches broker.ErrRejected and says why the message can't be sent.
func (c Config) wireProperties(m broker.Message) (map[string]string, error) {
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
		if value != "" { // brokers and clients drop empty properties
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
		{c.Profile.shardingKeyProperty(), m.ShardingKey},
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

// newMessageID returns a new unique key. It is as long as RocketMQ's own: some of its tools distinguish keys from offset ids by the length.
func newMessageID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Sprintf("generate message id: %v", err)) // the system has no randomness
	}
	return fmt.Sprintf("%X", id[:])
}

// messageGroup is the property with the sharding key of messages that came by gRPC.
const messageGroup = "__SHARDINGKEY"

// newDelivery returns a stored message with the properties that users may set; the reserved ones become its other fields.
func newDelivery(topic string, props map[string]string, body []byte) broker.Delivery {
	d := broker.Delivery{Message: broker.Message{
		ID:          props[primitive.PropertyUniqueClientMessageIdKeyIndex],
		Topic:       topic,
		Tag:         props[primitive.PropertyTags],
		Keys:        strings.Fields(props[primitive.PropertyKeys]),
		ShardingKey: cmp.Or(props[primitive.PropertyShardingKey], props[ShardingKeyProperty], props[messageGroup]),
		Properties:  map[string]string{},
		Body:        body,
	}}
	if topic == remoting.DiscardTopic {
		d.Topic = props[realTopic]
	}
	for name, value := range props {
		if !broker.Reserved(name) {
			d.Properties[name] = value
		}
	}
	return d
}

// bodyOf returns the decompressed body. With an error it returns the stored one.
func bodyOf(sysFlag int32, stored []byte, maxBody int) ([]byte, error) {
	body, err := remoting.Decompress(sysFlag, stored, maxBody)
	switch {
	case errors.Is(err, remoting.ErrTooLong):
		return stored, fmt.Errorf("%w: see MaxMessage in rocketmq.Config", err)
	case err != nil:
		return stored, err
	}
	return body, nil
}

// backoff returns the pause after an attempt, counted from 0: it doubles from shortest up to longest, less a random part of up to a quarter,
// so that many who wait for the same thing don't return at once.
func backoff(attempt int, shortest, longest time.Duration) time.Duration {
	d := longest
	if attempt < 16 && shortest<<attempt < longest {
		d = shortest << attempt
	}
	return d - rand.N(d/4+1)
}
