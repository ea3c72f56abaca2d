package rocketmq

// NameServersTold returns the name servers that the client under us would be told of.
func (c *Client) NameServersTold() []string { return c.names.Resolve() }
