package rocketmqtest

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Changed returns a channel that is closed at the next change of the server's state, or at the next request, which may have
// changed it. To wait for a state, call Changed before reading the state; [Server.Await] does so.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched == nil {
		s.watched = make(chan struct{})
	}
	return s.watched
}

// changed closes the channel of Changed. It is called with s.mu held.
func (s *Server) changed() {
	if s.watched != nil {
		close(s.watched)
		s.watched = nil
	}
}

// Await waits until wanted returns true for the status. When ctx ends first, it returns an error that wraps the cause and
// contains the last status.
func (s *Server) Await(ctx context.Context, wanted func(Status) bool) error {
	for {
		changed := s.Changed()
		status := s.Status()
		if wanted(status) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await: %w; last: %v", context.Cause(ctx), status)
		}
	}
}

// Status is a summary of the work that is left. It costs much less than a Dump.
type Status struct {
	// Halves is the number of open half messages.
	Halves int
	// Timers is the number of timers and delayed messages that wait.
	Timers int
	// NextDue is when the first of the Timers is due. It is zero if there is none.
	NextDue time.Time
	// Held is the number of requests that hooks hold back.
	Held int
	// Groups is the status of each consumer group, by name.
	Groups map[string]GroupStatus
}

// GroupStatus is the status of a consumer group.
type GroupStatus struct {
	// Members is the number of consumers.
	Members int
	// Lag is the number of messages after the committed offsets. Clients commit with the next pull, or every 5 s.
	Lag int64
	// Idle is whether each queue of the group's topics, including that of retries, has a pull that waits at its end. Consumers
	// may still be processing what they have pulled.
	Idle bool
}

// Settled reports whether no work is left: no half message is open, no request is held back, and each group that has members
// has committed all messages. Timers that wait are not counted.
func (s Status) Settled() bool {
	for _, g := range s.Groups {
		if g.Members > 0 && g.Lag > 0 {
			return false
		}
	}
	return s.Halves == 0 && s.Held == 0
}

// String returns the status in one line.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d half messages, %d timers, %d requests held", s.Halves, s.Timers, s.Held)
	for _, name := range sortedKeys(s.Groups) {
		g := s.Groups[name]
		fmt.Fprintf(&b, ", group %s: %d members, lag %d, idle %t", name, g.Members, g.Lag, g.Idle)
	}
	return b.String()
}

// Status returns a summary of the work that is left now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Halves: len(s.openHalves()), Held: int(s.holds.count.Load()), Groups: map[string]GroupStatus{}}
	for _, w := range s.waiting() {
		status.Timers++
		if status.NextDue.IsZero() || w.due.Before(status.NextDue) {
			status.NextDue = w.due
		}
	}
	for name, g := range s.groups {
		status.Groups[name] = GroupStatus{Members: len(g.members), Lag: s.lag(g), Idle: s.idle(g)}
	}
	return status
}

// openHalves returns the half messages that were neither committed nor rolled back.
func (s *Server) openHalves() []*entry {
	h, q := &s.halves, s.topics[halfTopic].queues[0]
	unwritten := make(map[int64]struct{}, len(h.unwritten))
	for _, offset := range h.unwritten {
		unwritten[offset] = struct{}{}
	}
	var open []*entry
	for offset := max(h.next, q.first); offset < q.end(); offset++ {
		_, ended := h.ended[offset]
		_, ending := unwritten[offset]
		if !ended && !ending {
			open = append(open, q.at(offset))
		}
	}
	return open
}

// waitingMessage is a timer or a delayed message that is not due yet.
type waitingMessage struct {
	*entry
	due   time.Time
	level int // of a delayed message; 0 for a timer
}

// waiting returns the timers that aren't deleted and the delayed messages, in no particular order.
func (s *Server) waiting() []waitingMessage {
	var all []waitingMessage
	for slot, offsets := range s.wheel {
		deleted := map[string]bool{}
		var timers []*entry
		for _, offset := range offsets {
			if e := s.topics[timerTopic].queues[0].at(offset); e == nil {
				continue
			} else if key, deletes := s.deletes(e.record().Properties); deletes {
				deleted[key] = true
			} else {
				timers = append(timers, e)
			}
		}
		for _, e := range timers {
			if p := e.record().Properties; len(deleted) == 0 || !deleted[s.timerKey(p[propertyRealTopic], p[propertyUniqueKey])] {
				all = append(all, waitingMessage{entry: e, due: time.UnixMilli(slot + s.precision())})
			}
		}
	}
	for i, l := range s.delayLevels {
		q := s.topics[scheduleTopic].queues[i]
		for offset := max(l.next, q.first); offset < q.end(); offset++ {
			e := q.at(offset)
			all = append(all, waitingMessage{entry: e, due: e.stored.Add(s.config.DelayLevels[i]), level: i + 1})
		}
	}
	return all
}

// queuesOf returns the queues of the topics that a group's members subscribe to or that it has offsets for.
func (s *Server) queuesOf(g *group) []*queue {
	topics := map[string]struct{}{}
	for _, m := range g.members {
		for name := range m.subscriptions {
			topics[name] = struct{}{}
		}
	}
	for q := range g.offsets {
		topics[q.topic.name] = struct{}{}
	}
	var queues []*queue
	for _, name := range sortedKeys(topics) {
		if t := s.topics[name]; t != nil {
			queues = append(queues, t.queues...)
		}
	}
	return queues
}

// lag counts the messages after a group's committed offsets.
func (s *Server) lag(g *group) int64 {
	var n int64
	for _, q := range s.queuesOf(g) {
		n += lagIn(g, q)
	}
	return n
}

// lagIn counts the messages of one queue after a group's committed offset.
func lagIn(g *group, q *queue) int64 {
	return q.end() - min(q.end(), max(q.first, g.offsets[q]))
}

// idle implements GroupStatus.Idle.
func (s *Server) idle(g *group) bool {
	if len(g.members) == 0 {
		return false
	}
	for _, q := range s.queuesOf(g) {
		waits := q.id >= q.topic.read
		for p := range q.polls {
			waits = waits || p.request.Ext["consumerGroup"] == g.name && p.request.number("queueOffset") >= q.end()
		}
		if !waits {
			return false
		}
	}
	return true
}

// Lag returns the number of messages after the offsets that a group has committed: 0 for an unknown group.
func (s *Server) Lag(group string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[group]; g != nil {
		return s.lag(g)
	}
	return 0
}
