package rocketflowtest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// progress tells which events the consumers are done with: handled, parked or given up. It compares what consumers say with
// what the broker holds.
type progress struct {
	mu       sync.Mutex
	groups   map[string]*reader   // of consumers that are handlers', by their group at the broker
	position int64                // in the broker's log
	events   map[string][]arrival // by topic
	order    []rocketflow.Event   // all of them
	count    int64                // of what consumers said
}

// reader is a consumer group.
type reader struct {
	open map[uuid.UUID]bool // got, and not done with; true: an attempt at a parked event
	done map[uuid.UUID]struct{}
	read map[string]int // by topic: how many of its events, from the first on, are done with

	awaited bool               // its service runs
	topics  map[string][]int64 // that it read when last seen, with the offsets that it had committed
}

// arrival is an event in the broker's log.
type arrival struct {
	event  rocketflow.Event
	queue  int
	offset int64
}

func newBook() *progress {
	return &progress{groups: map[string]*reader{}, events: map[string][]arrival{}}
}

// listener writes down what the consumers say whose groups have this prefix.
func (b *progress) listener(prefix string) *handlers.Listener {
	note := func(i handlers.EventInfo, done, retried bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.count++
		g := b.group(prefix + i.Consumer)
		if done {
			delete(g.open, i.Event.ID)
			g.done[i.Event.ID] = struct{}{}
		} else {
			g.open[i.Event.ID] = g.open[i.Event.ID] || retried
		}
	}
	done := func(i handlers.EventInfo) { note(i, true, false) }
	return &handlers.Listener{
		Received:  func(i handlers.ReceivedInfo) { note(i.EventInfo, false, false) },
		Retried:   func(i handlers.RetriedInfo) { note(i.EventInfo, false, true) },
		Handled:   func(i handlers.HandledInfo) { done(i.EventInfo) },
		Skipped:   done,
		Duplicate: done,
		Discarded: func(i handlers.FailureInfo) { done(i.EventInfo) },
		Parked:    func(i handlers.ParkedInfo) { done(i.EventInfo) },
		Dead:      func(i handlers.FailureInfo) { done(i.EventInfo) },
	}
}

// unread counts the events of a topic that the group isn't done with. What it has committed was handled by others.
func (g *reader) unread(topic string, events []arrival, offsets []int64) (n int) {
	for i := g.read[topic]; i < len(events); i++ {
		a := events[i]
		_, done := g.done[a.event.ID]
		_, busy := g.open[a.event.ID]
		if passed := a.queue < len(offsets) && a.offset < offsets[a.queue]; (done || passed) && !busy {
			if i == g.read[topic] {
				g.read[topic]++
			}
			continue
		}
		n++
	}
	return n
}

func (b *progress) group(name string) *reader {
	g := b.groups[name]
	if g == nil {
		g = &reader{open: map[uuid.UUID]bool{}, done: map[uuid.UUID]struct{}{}, read: map[string]int{}, topics: map[string][]int64{}}
		b.groups[name] = g
	}
	return g
}

// received returns the ids of events that consumers got and aren't done with, but for attempts at parked ones.
func (b *progress) received() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.groups {
		for id, retried := range g.open {
			if !retried {
				ids = append(ids, id.String())
			}
		}
	}
	return ids
}

// parked tells that a group has parked an event. A further copy of it is settled without a word to the listener.
func (b *progress) parked(group string, id uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groups[group]
	if g == nil {
		return
	}
	if retried, open := g.open[id]; open && !retried {
		delete(g.open, id)
		g.done[id] = struct{}{}
	}
}

// know makes a group one whose events are waited for, while its service runs. Others, which the test reads with by
// itself, are not.
func (b *progress) know(group string, runs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(group)
	g.awaited = runs
	clear(g.topics)
}

// reread begins anew with the broker's log, whose end may be another one now.
func (b *progress) reread() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.position, b.order = 0, nil
	clear(b.events)
	for _, g := range b.groups {
		clear(g.read)
	}
}

// moves rises whenever an event was stored or a consumer said something.
func (b *progress) moves() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.position + b.count
}

// follow reads on in the broker's log.
func (b *progress) follow(mq *rocketmqtest.Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages, next := mq.MessagesSince(b.position)
	b.position = next
	for _, m := range messages {
		e, err := wire.EventOf(broker.Delivery{
			Message: broker.Message{
				ID: m.ID, Topic: m.Topic, Tag: m.Tag, Keys: strings.Fields(m.Keys), ShardingKey: m.ShardingKey, Properties: m.Properties, Body: m.Body,
			},
			Queue: m.Queue, Offset: m.Offset, Born: m.Born, Stored: m.Stored,
		})
		if err == nil { // what is no event becomes a dead letter in its own time
			b.events[m.Topic] = append(b.events[m.Topic], arrival{e, m.Queue, m.Offset})
			b.order = append(b.order, e)
		}
	}
}

// left names the groups that aren't done with all that their topics hold.
func (b *progress) left(mq *rocketmqtest.Server) []string {
	b.follow(mq)
	subscriptions := mq.Subscriptions()
	b.mu.Lock()
	defer b.mu.Unlock()
	// A group that has no members for a moment, as after a restart of the broker, goes on with what it read before.
	for _, s := range subscriptions {
		if g := b.groups[s.Group]; g != nil && g.awaited {
			g.topics[s.Topic] = s.Offsets
		}
	}
	var left []string
	for name, g := range b.groups {
		for topic, offsets := range g.topics {
			if open := g.unread(topic, b.events[topic], offsets); open > 0 {
				left = append(left, fmt.Sprintf("consumer %s: %d events of topic %s not handled", name, open, topic))
			}
		}
	}
	for name, g := range b.groups {
		if len(g.open) > 0 {
			left = append(left, fmt.Sprintf("consumer %s: %d events under way", name, len(g.open)))
		}
	}
	return left
}
