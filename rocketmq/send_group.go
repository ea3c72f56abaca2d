package rocketmq

import (
	"context"
	"errors"

	"github.com/rocketflow/rocketflow/broker"
)

// Bounds of one request that has several messages. Brokers refuse more than their maxMessageSize, which is 4 MiB unless set lower.
// A larger message is sent alone.
const (
	maxGroupCount = 128
	maxGroupBytes = 1 << 20
	// memberOverhead is the size of the length fields of one message of a group.
	memberOverhead = 64
)

// member is one message of a group.
type member struct {
	index int // in the caller's slice
	props map[string]string
	size  int
}

// SendGroup implements [broker.Sender]. Messages of one queue keep their order; requests to different queues are concurrent.
func (c *Client) SendGroup(ctx context.Context, ms []broker.Message) []error {
	ms = c.config.withWireTopics(ms)
	errs := make([]error, len(ms))
	type target struct {
		topic string
		queue queue
	}
	byQueue := map[target][]member{}
	keyless := map[string]queue{} // the queue of this group's messages without a sharding key, by topic
	for i, m := range ms {
		props, err := c.config.wireProperties(m)
		if err == nil {
			err = c.config.Profile.checkBody(plainBody, len(m.Body))
		}
		if err != nil {
			errs[i] = err
			continue
		}
		route, err := c.routes.get(ctx, m.Topic)
		if err != nil {
			errs[i] = err
			continue
		}
		q, chosen := keyless[m.Topic]
		if m.ShardingKey != "" || !chosen {
			q = route.pick(m.ShardingKey, c.isUp)
		}
		if m.ShardingKey == "" {
			keyless[m.Topic] = q
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
			c.sendQueue(ctx, ms, t.queue, members, errs) // each writes to its own elements of errs
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

// Shard returns the index of the queue to which messages of a topic with a sharding key go: messages of the same shard share a
// queue. It returns -1 without a key, and as long as the client doesn't know the topic's queues. It sends no request.
func (c *Client) Shard(topic, shardingKey string) int {
	route := c.routes.cached(c.config.wireName(topic))
	if route == nil || shardingKey == "" {
		return -1
	}
	return route.shard(shardingKey)
}

// sendQueue sends the messages of one queue in order, in as few requests as the bounds allow. After a failure it sends no more, so
// that no message overtakes an earlier one.
func (c *Client) sendQueue(ctx context.Context, ms []broker.Message, q queue, members []member, errs []error) {
	var failed error
	count := maxGroupCount
	if !c.config.Profile.Facts().Batches.Is {
		count = 1
	}
	for len(members) > 0 {
		n, size := 1, members[0].size
		for n < len(members) && n < count && size+members[n].size <= maxGroupBytes {
			size += members[n].size
			n++
		}
		chunk := members[:n]
		members = members[n:]
		if failed != nil {
			for _, m := range chunk {
				errs[m.index] = failed
			}
			continue
		}
		failed = c.sendChunk(ctx, ms, q, chunk, errs)
	}
}

// sendChunk sends one request. It returns an error if the messages that follow must not be sent.
func (c *Client) sendChunk(ctx context.Context, ms []broker.Message, q queue, chunk []member, errs []error) error {
	messages := make([]outgoing, len(chunk))
	for i, m := range chunk {
		messages[i] = outgoing{ms[m.index].Topic, ms[m.index].Body, m.props}
	}
	_, err := c.sendTo(ctx, q, messages...)
	if err == nil {
		return nil
	}
	// The broker refuses the whole request because of some message; which one shows when each is sent alone.
	if len(chunk) > 1 && (errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal)) {
		for i := range chunk {
			err := c.sendChunk(ctx, ms, q, chunk[i:i+1], errs)
			if err != nil && !errors.Is(err, broker.ErrRejected) {
				for _, later := range chunk[i+1:] {
					errs[later.index] = err
				}
				return err
			}
		}
		return nil
	}
	for _, m := range chunk {
		errs[m.index] = err
	}
	if errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal) {
		return nil
	}
	return err
}
