package rocketmq

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queue is one queue of a topic.
type queue struct {
	broker string
	id     int
}

// topicRoute is the writable queues of a topic, sorted alike in all processes, so that a sharding key chooses the same queue in
// each of them.
type topicRoute struct {
	queues []queue
	next   atomic.Uint32 // counts messages without a sharding key
}

// routes caches the routes of topics that exist. A topic that doesn't is looked up each time, so that it is found as soon as it is
// created.
type routes struct {
	nameServers *nameServers
	// mayReturn reports whether a broker that the name servers don't list for a topic is expected back.
	mayReturn func(broker string) bool
	// explainNotFound explains an error that says that a topic doesn't exist.
	explainNotFound func(topic string, err error) error

	mu     sync.Mutex
	topics map[string]*topicRoute
}

// get returns the route of a topic from the cache, or else from a name server.
func (r *routes) get(ctx context.Context, topic string) (*topicRoute, error) {
	if t := r.cached(topic); t != nil {
		return t, nil
	}
	return r.fetch(ctx, topic)
}

// cached returns nil if the topic isn't in the cache.
func (r *routes) cached(topic string) *topicRoute {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topics[topic]
}

// fetch gets the route of a topic from a name server and caches it.
func (r *routes) fetch(ctx context.Context, topic string) (*topicRoute, error) {
	route, err := r.nameServers.route(ctx, topic)
	if err != nil {
		return nil, r.explainNotFound(topic, err)
	}
	t := &topicRoute{queues: writable(route)}
	if len(t.queues) == 0 {
		return nil, printable.Errorf("%w: topic %s has no writable queue on a master", broker.ErrUnavailable, topic)
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

// refresh fetches all cached routes, unless no name server responds. A topic that isn't found keeps its route: the name servers don't
// know it while its broker restarts. So does one that has no writable queue, or whose route can't be read.
func (r *routes) refresh(ctx context.Context) {
	r.mu.Lock()
	var topics []string
	for topic := range r.topics {
		topics = append(topics, topic)
	}
	r.mu.Unlock()
	for _, topic := range topics {
		if _, err := r.fetch(ctx, topic); err != nil && (ctx.Err() != nil || r.nameServers.failing()) {
			return // the rest would wait for the same
		}
	}
}

// merge returns the queues of now, and those of old whose broker isn't listed and may return: a message with a sharding key must
// wait for its queue rather than go to another.
func (r *routes) merge(old, now []queue) []queue {
	listed := map[string]bool{}
	for _, q := range now {
		listed[q.broker] = true
	}
	for _, q := range old {
		if !listed[q.broker] && r.mayReturn(q.broker) {
			now = append(now, q)
		}
	}
	return sortQueues(now)
}

// writable returns the queues of a route that take messages: writable ones on a master.
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

// shard returns the index of a sharding key's queue.
func (t *topicRoute) shard(shardingKey string) int {
	h := fnv.New64a()
	h.Write([]byte(shardingKey))
	return int(h.Sum64() % uint64(len(t.queues)))
}

// pick returns the queue of a sharding key; without a key the next queue whose broker is up, or any if none is.
func (t *topicRoute) pick(shardingKey string, isUp func(broker string) bool) queue {
	if shardingKey != "" {
		return t.queues[t.shard(shardingKey)]
	}
	var q queue
	for range t.queues {
		q = t.queues[int(t.next.Add(1))%len(t.queues)]
		if isUp(q.broker) {
			break
		}
	}
	return q
}
