package rocketmq

import (
	"context"
	"errors"
	"maps"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
)

// Bounds of one request that carries a group of messages. Brokers refuse more than their maxMessageSize, 4 MiB unless
// set lower; larger single messages go alone.
const (
	maxGroupCount = 128
	maxGroupBytes = 1 << 20
	// memberOverhead covers the length fields of a member of a group.
	memberOverhead = 64
)

// member is one message of a group.
type member struct {
	place int // in the caller's slice
	props map[string]string
	size  int
}

// SendGroup implements broker.Sender. Messages of one queue keep their order; the queues are served side by side.
func (c *Client) SendGroup(ctx context.Context, ms []broker.Message) []error {
	ms = c.config.wireAll(ms)
	errs := make([]error, len(ms))
	type target struct {
		topic string
		queue queue
	}
	byQueue := map[target][]member{}
	free := map[string]queue{} // where this group's messages without a sharding key go, by topic
	for i, m := range ms {
		props, err := properties(m)
		if err != nil {
			errs[i] = err
			continue
		}
		route, err := c.routes.of(ctx, m.Topic)
		if err != nil {
			errs[i] = err
			continue
		}
		q, chosen := free[m.Topic]
		if m.ShardingKey != "" || !chosen {
			q = route.pick(m.ShardingKey, c.up)
		}
		if m.ShardingKey == "" {
			free[m.Topic] = q
		}
		size := len(m.Body) + memberOverhead
		for name, value := range props {
			size += len(name) + len(value) + 2
		}
		t := target{m.Topic, q}
		byQueue[t] = append(byQueue[t], member{i, props, size})
	}
	finished := make(chan struct{}, len(byQueue))
	for t, members := range byQueue {
		go func() {
			c.sendQueue(ctx, ms, t.queue, members, errs) // each writes to places of its own
			finished <- struct{}{}
		}()
	}
	for range byQueue {
		<-finished
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// Shard tells which messages of a topic go to the same queue: those whose sharding keys have the same shard, as far as
// the topic's queues are known. It never asks a name server.
func (c *Client) Shard(topic, shardingKey string) int {
	route := c.routes.known(c.config.wire(topic))
	if route == nil || shardingKey == "" {
		return -1
	}
	return route.shard(shardingKey)
}

// sendQueue sends the messages of one queue in order, in as few requests as the bounds allow. After a failure the rest
// of the queue isn't sent: a later message must not overtake.
func (c *Client) sendQueue(ctx context.Context, ms []broker.Message, q queue, members []member, errs []error) {
	var failed error
	for len(members) > 0 {
		n, size := 1, members[0].size
		for n < len(members) && n < maxGroupCount && size+members[n].size <= maxGroupBytes {
			size += members[n].size
			n++
		}
		chunk := members[:n]
		members = members[n:]
		if failed != nil {
			for _, m := range chunk {
				errs[m.place] = failed
			}
			continue
		}
		failed = c.sendChunk(ctx, ms, q, chunk, errs)
	}
}

// sendChunk returns an error that holds back what follows.
func (c *Client) sendChunk(ctx context.Context, ms []broker.Message, q queue, chunk []member, errs []error) error {
	messages := make([]*primitive.Message, len(chunk))
	for i, m := range chunk {
		messages[i] = newMessage(ms[m.place], maps.Clone(m.props), q)
	}
	_, err := c.sendTo(ctx, q, messages...)
	if err == nil {
		return nil
	}
	// Refused as a whole for the sake of some member: which one shows when each goes alone.
	if len(chunk) > 1 && (errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal)) {
		for i := range chunk {
			err := c.sendChunk(ctx, ms, q, chunk[i:i+1], errs)
			if err != nil && !errors.Is(err, broker.ErrRejected) {
				for _, later := range chunk[i+1:] {
					errs[later.place] = err
				}
				return err
			}
		}
		return nil
	}
	for _, m := range chunk {
		errs[m.place] = err
	}
	if errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal) {
		return nil
	}
	return err
}
