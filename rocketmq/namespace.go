package rocketmq

import (
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// separator stands between the namespace and a name, as in RocketMQ's own namespaces.
const separator = "%"

// wireName returns the name of a topic or a group on the wire: with the namespace. Callers see names without it, except for those
// in a broker.Half, which callers don't read.
func (c Config) wireName(name string) string {
	if c.Namespace == "" || name == "" || name == remoting.DiscardTopic {
		return name
	}
	return c.Namespace + separator + name
}

// topicOf is the inverse of wireName.
func (c Config) topicOf(wireName string) string {
	if c.Namespace == "" {
		return wireName
	}
	return strings.TrimPrefix(wireName, c.Namespace+separator)
}

// withWireTopics returns the messages with their topics' names on the wire. It doesn't change ms.
func (c Config) withWireTopics(ms []broker.Message) []broker.Message {
	if c.Namespace == "" {
		return ms
	}
	ms = slices.Clone(ms)
	for i := range ms {
		ms[i].Topic = c.wireName(ms[i].Topic)
	}
	return ms
}
