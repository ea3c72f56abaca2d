package rocketmq

import (
	"context"
	"fmt"

	"github.com/rocketflow/rocketflow/broker"
)

// discardTopic is where a broker puts half messages whose checks it has given up. It belongs to the broker: no namespace
// is put before its name, and it doesn't exist before the first is put there.
const discardTopic = "TRANS_CHECK_MAX_TIME_TOPIC"

// realTopic is the property that keeps a half message's topic.
const realTopic = "REAL_TOPIC"

// SubscribeDiscarded starts a consumer of the half messages that the brokers gave up because nobody answered their
// checks, of all producers and namespaces; each has its own topic and Born. Nothing was delivered of them. It returns
// broker.ErrTopicNotFound as long as there was none. ctx bounds the start only.
func (c *Client) SubscribeDiscarded(ctx context.Context, group string, h broker.Handler) (broker.Consumer, error) {
	if _, err := c.routes.fetch(ctx, discardTopic); err != nil {
		return nil, fmt.Errorf("subscribe discarded half messages: %w", err)
	}
	return c.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{discardTopic}, MaxInFlight: 1}, h)
}
