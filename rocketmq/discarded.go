package rocketmq

import (
	"context"
	"fmt"

	"github.com/rocketflow/rocketflow/broker"
)

// discardTopic is the topic in which a broker puts half messages that it has checked as often as it is set to, without a decision.
// It belongs to the brokers: its name has no namespace, and it doesn't exist before the first such message.
const discardTopic = "TRANS_CHECK_MAX_TIME_TOPIC"

// realTopic is the property that keeps a half message's own topic.
const realTopic = "REAL_TOPIC"

// SubscribeDiscarded starts a consumer of discarded half messages: those that a broker has checked as often as it is set to (15
// times by default) without a decision, and never delivers. It gets those of all producer groups and namespaces. Each
// Delivery has the half message's own topic and time. Until there is one the error matches broker.ErrTopicNotFound: call it again
// later. ctx bounds the start only.
func (c *Client) SubscribeDiscarded(ctx context.Context, group string, h broker.Handler) (broker.Consumer, error) {
	if _, err := c.routes.fetch(ctx, discardTopic); err != nil {
		return nil, fmt.Errorf("subscribe discarded half messages: %w", err)
	}
	return c.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{discardTopic}, MaxInFlight: 1}, h)
}
