package rocketmq

import (
	"context"

	"github.com/rocketflow/rocketflow/broker"
)

// SendHeartbeat sends heartbeats of a consumer of the transport Own to its brokers.
func SendHeartbeat(ctx context.Context, c broker.Consumer) {
	k := c.(*consumer)
	k.mu.Lock()
	running := k.running
	k.mu.Unlock()
	if running != nil {
		running.register(ctx)
	}
}

// UseJSONHeaders makes the driver's own connections send JSON headers to all brokers.
func (c *Config) UseJSONHeaders() { c.jsonHeaders = true }

// LookUpHost replaces the system's lookup of host names.
func (c *Config) LookUpHost(fn func(ctx context.Context, host string) ([]string, error)) {
	c.lookUpHost = fn
}

// RefreshRoutes fetches the routes of all topics to which the client has sent.
func (c *Client) RefreshRoutes(ctx context.Context) { c.routes.refresh(ctx) }

// UsableNameServers returns the name servers that rocketmq-client-go gets.
func (c *Client) UsableNameServers() []string { return c.nameServers.Resolve() }

// CheckGrants checks what the brokers grant to a consumer, as at its start or later.
func CheckGrants(ctx context.Context, k broker.Consumer, starting bool) error {
	return k.(*consumer).checkGrants(ctx, starting)
}
