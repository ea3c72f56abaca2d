package rocketmq

// UsableNameServers returns the name servers that rocketmq-client-go gets.
func (c *Client) UsableNameServers() []string { return c.nameServers.Resolve() }
