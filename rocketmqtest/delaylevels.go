package rocketmqtest

import (
	"fmt"
	"strconv"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// level is a queue of the schedule topic: its messages all wait equally long, so they are due in their order.
type level struct {
	next  int64 // the queue offset of the first that waits
	armed bool  // the agenda has a task for it
}

// delayLevel reads the level that a message is delayed by; 0 or less: none.
func delayLevel(properties map[string]string) (int, error) {
	s, set := properties[propertyDelayLevel]
	if !set {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("java.lang.NumberFormatException: For input string: %q", s)
	}
	return int(n), nil
}

// putDelayed stores a record that is for r.Topic and r.Queue, to come there when the level's time has passed. Levels
// begin with 1; one beyond the last is the last.
func (s *Server) putDelayed(r *remoting.Record, n int) (*entry, error) {
	n = min(n, len(s.config.DelayLevels))
	r.Properties[propertyDelayLevel] = strconv.Itoa(n)
	recordDestination(r)
	r.Queue = n - 1
	e, err := s.put(s.topics[scheduleTopic], r)
	if err != nil {
		return nil, err
	}
	s.armLevel(n - 1)
	return e, nil
}

// recordDestination writes down where a message is for, before it is stored elsewhere.
func recordDestination(r *remoting.Record) {
	r.Properties[propertyRealTopic] = r.Topic
	r.Properties[propertyRealQueue] = strconv.Itoa(r.Queue)
}

// armLevel has a level's first message delivered when it is due.
func (s *Server) armLevel(i int) {
	l, q := &s.delayLevels[i], s.topics[scheduleTopic].queues[i]
	l.next = max(l.next, q.first)
	if e := q.at(l.next); e != nil && !l.armed {
		l.armed = true
		s.at(e.stored.Add(s.config.DelayLevels[i]), func() { s.deliverDelayed(i) })
	}
}

// deliverDelayed moves the first message of a level to where it is for.
func (s *Server) deliverDelayed(i int) {
	l, q := &s.delayLevels[i], s.topics[scheduleTopic].queues[i]
	l.armed = false
	// The first may be another one by now, if the oldest were thrown away.
	if e := q.at(l.next); e != nil && !e.stored.Add(s.config.DelayLevels[i]).After(s.clock.Now()) {
		l.next++
		if r := e.record(); r.Properties[propertyRealTopic] == halfTopic {
			s.config.Logger.Error("a half message was delayed, and is thrown away", "key", r.Properties[propertyUniqueKey])
		} else {
			s.deliverWaiting(e)
		}
	}
	s.armLevel(i)
}

// rebuildLevels arms all levels anew after the agenda was cleared.
func (s *Server) rebuildLevels() {
	for i := range s.delayLevels {
		s.delayLevels[i].armed = false
		s.armLevel(i)
	}
}
