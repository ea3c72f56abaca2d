package rocketmqtest

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Message is a copy of a stored message.
type Message struct {
	Topic       string            `json:"topic"`
	Queue       int               `json:"queue"`
	Offset      int64             `json:"offset"` // in its queue
	ID          string            `json:"id"`     // the unique key, set by the producer
	Tag         string            `json:"tag,omitempty"`
	Keys        string            `json:"keys,omitempty"`
	ShardingKey string            `json:"sharding_key,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"` // including the broker's own
	Body        []byte            `json:"body"`                 // as the producer sent it, decompressed
	Born        time.Time         `json:"born"`                 // when it was sent, by the server's clock
	Stored      time.Time         `json:"stored"`               // when it was stored, by the server's clock
	Reconsumed  int               `json:"reconsumed,omitempty"` // how often a consumer has sent it back
}

// newMessage copies a record.
func newMessage(r *remoting.Record) Message {
	body, err := r.Payload()
	if err != nil {
		body = r.Body // not compressed, whatever its flag says
	}
	return Message{
		Topic: r.Topic, Queue: r.Queue, Offset: r.QueueOffset,
		ID: r.Properties[propertyUniqueKey], Tag: r.Properties[propertyTag], Keys: r.Properties[propertyKeys], ShardingKey: r.Properties[propertyShardingKey],
		Properties: r.Properties, Body: slices.Clone(body), Born: r.Born, Stored: r.Stored, Reconsumed: r.Reconsumed,
	}
}

// MessagesSince returns the messages of all topics from a position of the commit log on, in the order in which they were
// stored, and the next position. It leaves out the broker's own topics and topics of retries. Position 0 is the beginning.
// The position rises with each message that is stored in any topic, so an equal position means that nothing was stored.
func (s *Server) MessagesSince(position int64) ([]Message, int64) {
	s.mu.Lock()
	entries := s.log.entries
	i := sort.Search(len(entries), func(i int) bool { return entries[i].offset >= position })
	entries = slices.Clone(entries[i:])
	next := s.log.next
	s.mu.Unlock()
	var messages []Message
	for _, e := range entries { // an entry never changes
		if name := e.queue.topic.name; !systemTopic(name) && !strings.HasPrefix(name, retryPrefix) {
			messages = append(messages, newMessage(e.record()))
		}
	}
	return messages, next
}

// Subscription is a topic to which a consumer group is subscribed.
type Subscription struct {
	// Group and Topic are the names of the two.
	Group, Topic string
	// Offsets are the offsets that the group has committed, by queue. It is 0 where it has committed none.
	Offsets []int64
}

// Subscriptions returns the subscriptions of all groups that have members, sorted by group and topic. It leaves out the
// topics of retries.
func (s *Server) Subscriptions() []Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Subscription
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[name]
		topics := map[string]struct{}{}
		for _, m := range g.members {
			for topic := range m.subscriptions {
				if !strings.HasPrefix(topic, retryPrefix) {
					topics[topic] = struct{}{}
				}
			}
		}
		for _, topic := range slices.Sorted(maps.Keys(topics)) {
			sub := Subscription{Group: name, Topic: topic}
			if t := s.topics[topic]; t != nil {
				for _, q := range t.queues {
					sub.Offsets = append(sub.Offsets, g.offsets[q])
				}
			}
			all = append(all, sub)
		}
	}
	return all
}
