package rocketmq

import (
	"context"
	"fmt"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// realTopic is the property that keeps a half message's own topic.
const realTopic = "REAL_TOPIC"

// SubscribeDiscarded starts a consumer of discarded half messages: those that a broker has checked as often as it is set to (15
// times by default) without a decision, and never delivers. It gets those of all producer groups and namespaces. Each
// Delivery has the half message's own topic and time. Until there is one the error matches broker.ErrTopicNotFound: call it again
// later. ctx bounds the start only.
func (c *Client) SubscribeDiscarded(ctx context.Context, group string, h broker.Handler) (broker.Consumer, error) {
	if _, err := c.routes.fetch(ctx, remoting.DiscardTopic); err != nil {
		return nil, fmt.Errorf("subscribe discarded half messages: %w", err)
	}
	return c.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{remoting.DiscardTopic}, MaxInFlight: 1}, h)
}
