package rocketmq

import "context"

// OpenOwnConnections opens a client that makes the driver's own connections alone, which can use TLS.
func OpenOwnConnections(ctx context.Context, config Config) (*Client, error) {
	config.ownConnectionsOnly = true
	return Open(ctx, config)
}

// UsableNameServers returns the name servers that rocketmq-client-go gets.
func (c *Client) UsableNameServers() []string { return c.nameServers.Resolve() }
