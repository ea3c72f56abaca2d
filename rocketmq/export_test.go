package rocketmq

import (
	"context"
	"maps"
)

// Members returns the ids of the consumers that brokers list in a group.
func (c *Client) Members(ctx context.Context, group string) (all []string, err error) {
	c.mu.Lock()
	links := maps.Clone(c.links)
	c.mu.Unlock()
	for _, l := range links {
		ids, err := l.members(ctx, group)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}
