package rocketmq

import (
	"context"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Members returns the ids of the clients that brokers list in a group.
func (c *Client) Members(ctx context.Context, group string) (ids []string) {
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	for _, l := range links {
		answer, err := l.call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
		if err != nil {
			continue // it has no member
		}
		var list struct {
			IDs []string `json:"consumerIdList"`
		}
		if err := remoting.DecodeJSON(answer.Body, &list); err != nil {
			panic(err)
		}
		ids = append(ids, list.IDs...)
	}
	return ids
}
