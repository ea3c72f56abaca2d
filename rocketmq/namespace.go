package rocketmq

import (
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
)

// Callers never see the namespace: it is put before the names of topics and groups on their way out, and taken off what
// comes in. Only a broker.Half keeps the name on the wire, as no caller reads it.

// separator stands between namespace and name, as in RocketMQ's own namespaces.
const separator = "%"

// wire returns the name that RocketMQ knows a topic or a group by.
func (c Config) wire(name string) string {
	if c.Namespace == "" || name == "" || name == discardTopic {
		return name
	}
	return c.Namespace + separator + name
}

// bare returns the name that callers know a topic by.
func (c Config) bare(name string) string {
	if c.Namespace == "" {
		return name
	}
	return strings.TrimPrefix(name, c.Namespace+separator)
}

// wireAll returns messages with their topics on the wire. ms isn't changed.
func (c Config) wireAll(ms []broker.Message) []broker.Message {
	if c.Namespace == "" {
		return ms
	}
	ms = slices.Clone(ms)
	for i := range ms {
		ms[i].Topic = c.wire(ms[i].Topic)
	}
	return ms
}
