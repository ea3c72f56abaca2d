package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queue is one queue of a topic that takes messages.
type queue struct {
	broker string
	id     int
}

// topicRoute lists the queues of a topic in one order for all processes, so that a sharding key means the same queue
// everywhere.
type topicRoute struct {
	queues []queue
	turn   atomic.Uint32
}

// routes remembers where topics are. An unknown topic is asked for each time, so it is found as soon as it exists.
type routes struct {
	names *nameServers
	// missing tells whether a broker that the name servers don't list for a topic is expected back.
	missing func(broker string) bool
	// unlisted says what it means that a topic isn't found.
	unlisted func(error) error

	mu     sync.Mutex
	topics map[string]*topicRoute
}

func (r *routes) of(ctx context.Context, topic string) (*topicRoute, error) {
	if t := r.known(topic); t != nil {
		return t, nil
	}
	return r.fetch(ctx, topic)
}

func (r *routes) known(topic string) *topicRoute {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topics[topic]
}

func (r *routes) fetch(ctx context.Context, topic string) (*topicRoute, error) {
	route, err := r.names.route(ctx, topic)
	if err != nil {
		return nil, r.unlisted(err)
	}
	t := &topicRoute{queues: writable(route)}
	if len(t.queues) == 0 {
		return nil, printable.Errorf("%w: topic %s has no queue on a master that takes messages", broker.ErrUnavailable, topic)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.topics == nil {
		r.topics = map[string]*topicRoute{}
	}
	if old := r.topics[topic]; old != nil {
		t.queues = r.merge(old.queues, t.queues)
	}
	if old := r.topics[topic]; old != nil && slices.Equal(old.queues, t.queues) {
		return old, nil
	}
	r.topics[topic] = t
	return t, nil
}

func (r *routes) forget(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.topics, topic)
}

// refresh fetches all known routes. A topic that is not found keeps its route: while its broker restarts the name
// servers don't know it.
func (r *routes) refresh(ctx context.Context) {
	r.mu.Lock()
	var topics []string
	for topic := range r.topics {
		topics = append(topics, topic)
	}
	r.mu.Unlock()
	for _, topic := range topics {
		if _, err := r.fetch(ctx, topic); errors.Is(err, broker.ErrUnavailable) {
			return
		}
	}
}

// merge keeps the queues of a broker that is away for a moment: a message with a sharding key must wait for it rather
// than go to another queue.
func (r *routes) merge(old, now []queue) []queue {
	listed := map[string]bool{}
	for _, q := range now {
		listed[q.broker] = true
	}
	for _, q := range old {
		if !listed[q.broker] && r.missing(q.broker) {
			now = append(now, q)
		}
	}
	return sortQueues(now)
}

func writable(route remoting.Route) []queue {
	master := map[string]bool{}
	for _, b := range route.Brokers {
		master[b.Name] = b.Master() != ""
	}
	var queues []queue
	for _, q := range route.Queues {
		if q.Perm&remoting.PermWrite == 0 || !master[q.Broker] {
			continue
		}
		for id := range q.Write {
			queues = append(queues, queue{q.Broker, id})
		}
	}
	return sortQueues(queues)
}

func sortQueues(queues []queue) []queue {
	slices.SortFunc(queues, func(a, b queue) int {
		return cmp.Or(cmp.Compare(a.broker, b.broker), cmp.Compare(a.id, b.id))
	})
	return slices.Compact(queues)
}

// shard is the place of a sharding key's queue.
func (t *topicRoute) shard(shardingKey string) int {
	h := fnv.New64a()
	h.Write([]byte(shardingKey))
	return int(h.Sum64() % uint64(len(t.queues)))
}

// pick chooses the queue: by the sharding key, or the next one whose broker is up.
func (t *topicRoute) pick(shardingKey string, up func(broker string) bool) queue {
	if shardingKey != "" {
		return t.queues[t.shard(shardingKey)]
	}
	var q queue
	for range t.queues {
		q = t.queues[int(t.turn.Add(1))%len(t.queues)]
		if up(q.broker) {
			break
		}
	}
	return q
}
