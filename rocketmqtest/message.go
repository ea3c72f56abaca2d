package rocketmqtest

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Message is a stored message, to look at.
type Message struct {
	Topic       string            `json:"topic"`
	Queue       int               `json:"queue"`
	Offset      int64             `json:"offset"` // in the queue
	ID          string            `json:"id"`     // the unique key that the producer gave
	Tag         string            `json:"tag,omitempty"`
	Keys        string            `json:"keys,omitempty"`
	ShardingKey string            `json:"sharding_key,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"` // all, the broker's own too
	Body        []byte            `json:"body"`                 // as the producer gave it
	Born        time.Time         `json:"born"`
	Stored      time.Time         `json:"stored"`
	Reconsumed  int               `json:"reconsumed,omitempty"`
}

func newMessage(r *remoting.Record) Message {
	body, err := r.Payload()
	if err != nil {
		body = r.Body // what is no compressed body after all is shown as it is
	}
	return Message{
		Topic: r.Topic, Queue: r.Queue, Offset: r.QueueOffset,
		ID: r.Properties[propertyUniqueKey], Tag: r.Properties[propertyTag], Keys: r.Properties[propertyKeys], ShardingKey: r.Properties[propertyShardingKey],
		Properties: r.Properties, Body: slices.Clone(body), Born: r.Born, Stored: r.Stored, Reconsumed: r.Reconsumed,
	}
}

// MessagesSince returns the messages that were stored from a position of the commit log on, in all topics but the broker's own,
// in their order, and the position after them. Position 0 is the beginning; a position only ever rises, with each message
// that is stored anywhere, so it also tells whether anything was.
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

// Subscription is what a consumer group reads at present.
type Subscription struct {
	Group, Topic string
	Offsets      []int64 // committed by the group, for each queue; 0: none
}

// Subscriptions returns what the groups that have members read, but for their topics of retries.
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
