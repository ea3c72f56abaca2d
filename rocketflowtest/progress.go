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

// progress tracks which events each consumer has settled: handled, discarded, parked or made dead letters. It compares what
// the handlers' listeners report with what the broker has stored.
type progress struct {
	mu       sync.Mutex
	groups   map[string]*group        // by the name of the group at the broker
	position int64                    // up to which the broker's log was read
	events   map[string][]storedEvent // by topic
	order    []rocketflow.Event       // all events, as the broker stored them
	reports  int64                    // number of calls of listeners
}

// group is a consumer group.
type group struct {
	open    map[uuid.UUID]bool     // received and not settled; the value is true for a retry of a parked event
	settled map[uuid.UUID]struct{} // by this process
	prefix  map[string]int         // by topic: the number of its first events that are all settled

	awaited bool               // its service runs, so Settle waits for it
	offsets map[string][]int64 // by topic of its last known subscriptions: the committed offset of each queue
}

// storedEvent is an event with its place at the broker.
type storedEvent struct {
	event  rocketflow.Event
	queue  int
	offset int64
}

func newProgress() *progress {
	return &progress{groups: map[string]*group{}, events: map[string][]storedEvent{}}
}

// listener returns a listener for consumers whose groups have this prefix.
func (p *progress) listener(prefix string) *handlers.Listener {
	report := func(i handlers.EventInfo, settled, retry bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reports++
		g := p.group(prefix + i.Consumer)
		if settled {
			delete(g.open, i.Event.ID)
			g.settled[i.Event.ID] = struct{}{}
		} else {
			g.open[i.Event.ID] = g.open[i.Event.ID] || retry
		}
	}
	settled := func(i handlers.EventInfo) { report(i, true, false) }
	return &handlers.Listener{
		Received:  func(i handlers.ReceivedInfo) { report(i.EventInfo, false, false) },
		Retried:   func(i handlers.RetriedInfo) { report(i.EventInfo, false, true) },
		Handled:   func(i handlers.HandledInfo) { settled(i.EventInfo) },
		Skipped:   settled,
		Duplicate: settled,
		Discarded: func(i handlers.FailureInfo) { settled(i.EventInfo) },
		Parked:    func(i handlers.ParkedInfo) { settled(i.EventInfo) },
		Dead:      func(i handlers.FailureInfo) { settled(i.EventInfo) },
	}
}

// unsettled counts the events of a topic that the group has not settled. An event before the committed offset of its queue
// counts as settled: another process may have handled it.
func (g *group) unsettled(topic string, events []storedEvent, offsets []int64) (n int) {
	for i := g.prefix[topic]; i < len(events); i++ {
		s := events[i]
		_, settled := g.settled[s.event.ID]
		_, open := g.open[s.event.ID]
		if committed := s.queue < len(offsets) && s.offset < offsets[s.queue]; (settled || committed) && !open {
			if i == g.prefix[topic] {
				g.prefix[topic]++
			}
			continue
		}
		n++
	}
	return n
}

// group returns the group of a name, which it adds if it is new. It is called with mu held.
func (p *progress) group(name string) *group {
	g := p.groups[name]
	if g == nil {
		g = &group{open: map[uuid.UUID]bool{}, settled: map[uuid.UUID]struct{}{}, prefix: map[string]int{}, offsets: map[string][]int64{}}
		p.groups[name] = g
	}
	return g
}

// received returns the ids of events that were delivered to consumers and are not settled. Retries of parked events are not
// among them.
func (p *progress) received() (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		for id, retry := range g.open {
			if !retry {
				ids = append(ids, id.String())
			}
		}
	}
	return ids
}

// parked records that a group has a row for an event in its table of parked events. The listener isn't called for a further
// copy of such an event, so without this the copy would stay open.
func (p *progress) parked(name string, id uuid.UUID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[name]
	if g == nil {
		return
	}
	if retry, open := g.open[id]; open && !retry {
		delete(g.open, id)
		g.settled[id] = struct{}{}
	}
}

// setAwaited sets whether Settle waits for a group: for those of running services, not for consumers of the test itself.
func (p *progress) setAwaited(name string, awaited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.group(name)
	g.awaited = awaited
	clear(g.offsets)
}

// reread makes the next read start at the beginning of the broker's log, which may have lost its end.
func (p *progress) reread() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.position, p.order = 0, nil
	clear(p.events)
	for _, g := range p.groups {
		clear(g.prefix)
	}
}

// changes returns a number that rises whenever the broker stores a message or a listener is called.
func (p *progress) changes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position + p.reports
}

// all returns the events that the broker has stored, in their order.
func (p *progress) all(mq *rocketmqtest.Server) []rocketflow.Event {
	p.read(mq)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order[:len(p.order):len(p.order)]
}

// read reads what was added to the broker's log.
func (p *progress) read(mq *rocketmqtest.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	messages, next := mq.MessagesSince(p.position)
	p.position = next
	for _, m := range messages {
		e, err := wire.EventOf(broker.Delivery{
			Message: broker.Message{
				ID: m.ID, Topic: m.Topic, Tag: m.Tag, Keys: strings.Fields(m.Keys), ShardingKey: m.ShardingKey, Properties: m.Properties, Body: m.Body,
			},
			Queue: m.Queue, Offset: m.Offset, Born: m.Born, Stored: m.Stored,
		})
		if err == nil { // a message that is no event becomes a dead letter, which Settle doesn't wait for
			p.events[m.Topic] = append(p.events[m.Topic], storedEvent{e, m.Queue, m.Offset})
			p.order = append(p.order, e)
		}
	}
}

// unsettled describes, for each awaited group, the events that it has not settled; nil if there are none.
func (p *progress) unsettled(mq *rocketmqtest.Server) []string {
	p.read(mq)
	subscriptions := mq.Subscriptions()
	p.mu.Lock()
	defer p.mu.Unlock()
	// A group that has no members for a moment, as after a restart of the broker, keeps its last known subscriptions.
	for _, s := range subscriptions {
		if g := p.groups[s.Group]; g != nil && g.awaited {
			g.offsets[s.Topic] = s.Offsets
		}
	}
	var work []string
	for name, g := range p.groups {
		for topic, offsets := range g.offsets {
			if n := g.unsettled(topic, p.events[topic], offsets); n > 0 {
				work = append(work, fmt.Sprintf("consumer %s: %d events of topic %s not handled", name, n, topic))
			}
		}
	}
	for name, g := range p.groups {
		if len(g.open) > 0 {
			work = append(work, fmt.Sprintf("consumer %s: %d events in flight", name, len(g.open)))
		}
	}
	return work
}
