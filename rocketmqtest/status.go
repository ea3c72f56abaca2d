package rocketmqtest

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Changed returns a channel that is closed by the next change, or request that may have changed something. Who waits for
// a state asks for the channel before looking at the state.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched == nil {
		s.watched = make(chan struct{})
	}
	return s.watched
}

// changed tells those who wait. It is called with s.mu held.
func (s *Server) changed() {
	if s.watched != nil {
		close(s.watched)
		s.watched = nil
	}
}

// Await waits until the status is as wanted. An error wraps that of ctx and tells the last status.
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

// Status says what is still to be done; it costs much less than a Dump.
type Status struct {
	Halves  int       // half messages that are open
	Timers  int       // timers and delayed messages that wait
	NextDue time.Time // of them; zero: none
	Held    int       // requests that hooks hold back
	Groups  map[string]GroupStatus
}

// GroupStatus is how far a consumer group is.
type GroupStatus struct {
	Members int
	Lag     int64 // messages after the committed offsets; clients commit with the next pull, or every 5 s
	// Idle: each queue of its topics, that of retries too, has a pull that waits at its end. What was pulled may still be
	// in the hands of the consumers.
	Idle bool
}

// Settled tells whether nothing is open, held back or unread: no half messages, and each group that has members has
// committed all there is. Timers don't count.
func (s Status) Settled() bool {
	for _, g := range s.Groups {
		if g.Members > 0 && g.Lag > 0 {
			return false
		}
	}
	return s.Halves == 0 && s.Held == 0
}

func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d half messages, %d timers, %d requests held", s.Halves, s.Timers, s.Held)
	for _, name := range sortedKeys(s.Groups) {
		g := s.Groups[name]
		fmt.Fprintf(&b, ", group %s: %d members, lag %d, idle %t", name, g.Members, g.Lag, g.Idle)
	}
	return b.String()
}

// Status returns the present one.
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

// openHalves lists the half messages that nobody has ended.
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

// waitingMessage is a message that waits for its instant.
type waitingMessage struct {
	*entry
	due   time.Time
	level int // 0: a timer
}

// waiting lists the timers that aren't deleted and the delayed messages, in no order.
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

// queuesOf lists the queues that a group reads, by its members or by its offsets.
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

func lagIn(g *group, q *queue) int64 {
	return q.end() - min(q.end(), max(q.first, g.offsets[q]))
}

// idle tells whether a group's pulls wait at the ends of all its queues.
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

// Lag counts the messages after the offsets that a group has committed; 0 for one that isn't known.
func (s *Server) Lag(group string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[group]; g != nil {
		return s.lag(g)
	}
	return 0
}
