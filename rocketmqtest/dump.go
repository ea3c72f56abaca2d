package rocketmqtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Dump is a snapshot of everything that the broker holds, for the log of a test that failed: as text by String, or by JSON.
// The broker's own topics are left out; their messages are in Halves and Timers.
type Dump struct {
	Now    time.Time    `json:"now"` // by the server's clock
	Topics []TopicDump  `json:"topics"`
	Halves []HalfDump   `json:"halves"` // open half messages
	Timers []TimerDump  `json:"timers"` // timers and delayed messages, the next due first
	Groups []GroupDump  `json:"groups"`
	Broker BrokerStatus `json:"broker"`
}

// BrokerStatus is the state of the broker itself.
type BrokerStatus struct {
	Stopped     bool `json:"stopped"`     // by Stop
	Paused      bool `json:"paused"`      // by Pause
	Connections int  `json:"connections"` // number of open connections, those to the name server not counted
	Silent      int  `json:"silent"`      // number of Connections that a pause or a partition silences
	Held        int  `json:"held"`        // number of requests that hooks hold back
	Bytes       int  `json:"bytes"`       // size of all stored messages
}

// TopicDump is a snapshot of a topic.
type TopicDump struct {
	Name   string      `json:"name"`
	Queues []QueueDump `json:"queues"`
}

// QueueDump is a snapshot of a queue. Its messages have the offsets from Min up to and excluding Max.
type QueueDump struct {
	ID       int       `json:"id"`
	Min      int64     `json:"min"`
	Max      int64     `json:"max"`
	Messages []Message `json:"messages"`
}

// HalfDump is a snapshot of an open half message. Topic and queue of the message are those that it is to be delivered to.
type HalfDump struct {
	Message
	Group  string        `json:"group"`  // the producer group
	Checks int           `json:"checks"` // how often it was checked back
	Age    time.Duration `json:"age"`    // since it was sent
}

// TimerDump is a snapshot of a timer or a delayed message. Topic and queue are those that it is to be delivered to.
type TimerDump struct {
	Message
	Due   time.Time `json:"due"`
	Level int       `json:"level,omitempty"` // of a delayed message; 0 for a timer
}

// GroupDump is a snapshot of a consumer group.
type GroupDump struct {
	Name    string       `json:"name"`
	Members []MemberDump `json:"members"` // the consumers of the group
	Queues  []GroupQueue `json:"queues"`  // those of the topics that it subscribes to or has offsets for
	Lag     int64        `json:"lag"`     // messages after the committed offsets
}

// MemberDump is a snapshot of a consumer of a group.
type MemberDump struct {
	Client        string            `json:"client"` // its id
	Remote        netip.AddrPort    `json:"remote"`
	Subscriptions map[string]string `json:"subscriptions"` // the filter expression of each topic
}

// GroupQueue is a snapshot of a group's progress in a queue.
type GroupQueue struct {
	Topic  string `json:"topic"`
	Queue  int    `json:"queue"`
	Offset int64  `json:"offset"` // the committed offset; -1 if there is none
	Lag    int64  `json:"lag"`
	Locked string `json:"locked,omitempty"` // id of the client that holds the lock; empty if none does
}

// Dump returns a snapshot of everything that the broker holds.
func (s *Server) Dump() Dump {
	connections := s.broker.all()
	silent := 0
	for _, c := range connections {
		if c.gate.Load() != nil {
			silent++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Dump{Now: s.clock.Now(), Broker: BrokerStatus{
		Stopped: s.stopped, Paused: s.paused, Connections: len(connections), Silent: silent, Held: int(s.holds.count.Load()), Bytes: s.log.bytes,
	}}
	for _, name := range sortedKeys(s.topics) {
		if internalTopic(name) {
			continue
		}
		t := TopicDump{Name: name}
		for _, q := range s.topics[name].queues {
			t.Queues = append(t.Queues, QueueDump{ID: q.id, Min: q.first, Max: q.end(), Messages: messagesOf(q)})
		}
		d.Topics = append(d.Topics, t)
	}
	for _, e := range s.openHalves() {
		r := e.record()
		checks, _ := strconv.Atoi(r.Properties[propertyCheckTimes])
		d.Halves = append(d.Halves, HalfDump{Message: atDestination(e), Group: r.Properties[propertyProducerGroup], Checks: checks, Age: d.Now.Sub(r.Born)})
	}
	for _, w := range s.waiting() {
		d.Timers = append(d.Timers, TimerDump{Message: atDestination(w.entry), Due: w.due, Level: w.level})
	}
	slices.SortFunc(d.Timers, func(a, b TimerDump) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID)) })
	for _, name := range sortedKeys(s.groups) {
		d.Groups = append(d.Groups, s.dumpGroup(s.groups[name]))
	}
	return d
}

// dumpGroup returns a snapshot of a group. It is called with s.mu held.
func (s *Server) dumpGroup(g *group) GroupDump {
	d := GroupDump{Name: g.name, Lag: s.lag(g)}
	for _, m := range g.members {
		dumped := MemberDump{Client: m.client, Remote: m.session.remote, Subscriptions: map[string]string{}}
		for topic, sub := range m.subscriptions {
			dumped.Subscriptions[topic] = sub.Expression
		}
		d.Members = append(d.Members, dumped)
	}
	for _, q := range s.queuesOf(g) {
		offset, committed := g.offsets[q]
		if !committed {
			offset = -1
		}
		d.Queues = append(d.Queues, GroupQueue{Topic: q.topic.name, Queue: q.id, Offset: offset, Lag: lagIn(g, q), Locked: s.holder(g, q)})
	}
	return d
}

// internalTopic reports whether a Dump leaves out a topic: it holds no messages for consumers, or not yet.
func internalTopic(name string) bool {
	switch name {
	case halfTopic, opTopic, scheduleTopic, timerTopic, defaultTopic:
		return true
	}
	return false
}

// atDestination returns a half message or a timer with the topic and queue that it is to be delivered to.
func atDestination(e *entry) Message {
	m := newMessage(e.record())
	m.Topic = m.Properties[propertyRealTopic]
	m.Queue, _ = strconv.Atoi(m.Properties[propertyRealQueue])
	return m
}

// messagesOf copies the messages of a queue.
func messagesOf(q *queue) []Message {
	var all []Message
	for _, e := range q.entries {
		all = append(all, newMessage(e.record()))
	}
	return all
}

// Messages returns copies of the messages that a topic holds, sorted by queue and offset. The topic may also be one of
// retries ("%RETRY%" and the group), of dead letters ("%DLQ%" and the group), or one of the broker's own.
func (s *Server) Messages(topic string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Message
	if t := s.topics[topic]; t != nil {
		for _, q := range t.queues {
			all = append(all, messagesOf(q)...)
		}
	}
	return all
}

// JSON returns the dump as indented JSON.
func (d Dump) JSON() string {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// String returns the dump as text of several lines.
func (d Dump) String() string {
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		b.WriteString(strings.Repeat("  ", indent))
		fmt.Fprintf(&b, format, args...)
		b.WriteByte('\n')
	}
	state := "runs"
	switch {
	case d.Broker.Stopped:
		state = "is stopped"
	case d.Broker.Paused:
		state = "is paused"
	}
	line(0, "broker %s at %s: %d connections (%d silent), %d bytes, %d requests held", state, clockTime(d.Now), d.Broker.Connections, d.Broker.Silent, d.Broker.Bytes, d.Broker.Held)
	for _, t := range d.Topics {
		line(0, "topic %s", t.Name)
		for _, q := range t.Queues {
			if q.Max == 0 {
				continue
			}
			line(1, "queue %d: %d to %d", q.ID, q.Min, q.Max)
			for _, m := range q.Messages {
				line(2, "%d %s", m.Offset, m.line())
			}
		}
	}
	for _, h := range d.Halves {
		line(0, "half of %s for %s/%d: age %v, %d checks: %s", h.Group, h.Topic, h.Queue, h.Age.Round(time.Millisecond), h.Checks, h.line())
	}
	for _, t := range d.Timers {
		kind := "timer"
		if t.Level > 0 {
			kind = fmt.Sprintf("delayed (level %d)", t.Level)
		}
		line(0, "%s for %s/%d: due in %v: %s", kind, t.Topic, t.Queue, t.Due.Sub(d.Now).Round(time.Millisecond), t.line())
	}
	for _, g := range d.Groups {
		line(0, "group %s: lag %d", g.Name, g.Lag)
		for _, m := range g.Members {
			var subs []string
			for _, topic := range sortedKeys(m.Subscriptions) {
				subs = append(subs, topic+" ("+m.Subscriptions[topic]+")")
			}
			line(1, "member %s at %v: %s", m.Client, m.Remote, strings.Join(subs, ", "))
		}
		for _, q := range g.Queues {
			if q.Offset < 0 && q.Lag == 0 && q.Locked == "" {
				continue
			}
			locked := ""
			if q.Locked != "" {
				locked = ", locked by " + q.Locked
			}
			line(1, "%s/%d: offset %d, lag %d%s", q.Topic, q.Queue, q.Offset, q.Lag, locked)
		}
	}
	return b.String()
}

// line returns the message in one line.
func (m Message) line() string {
	const maxBody = 200
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s ", name, value)
		}
	}
	field("id", m.ID)
	field("tag", m.Tag)
	field("keys", m.Keys)
	field("sharding", m.ShardingKey)
	if m.Reconsumed > 0 {
		field("reconsumed", strconv.Itoa(m.Reconsumed))
	}
	field("stored", clockTime(m.Stored))
	if len(m.Body) > maxBody {
		fmt.Fprintf(&b, "%q… (%d bytes)", m.Body[:maxBody], len(m.Body))
	} else {
		fmt.Fprintf(&b, "%q", m.Body)
	}
	return b.String()
}

// clockTime formats the time of day.
func clockTime(t time.Time) string { return t.Format("15:04:05.000") }
