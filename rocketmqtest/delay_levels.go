package rocketmqtest

import (
	"fmt"
	"strconv"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// level is the state of a delay level, which is a queue of the schedule topic. All its messages wait equally long, so they
// fall due in their order.
type level struct {
	next  int64 // the queue offset of the first message that waits
	armed bool  // the schedule has a task for it
}

// delayLevel returns the delay level of a message: 0 or less if it is not delayed.
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

// putDelayed stores a record that is delivered to r.Topic and r.Queue after the delay of level n. Levels start at 1; a level
// beyond the last is taken as the last.
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

// recordDestination records topic and queue of a message in its properties, before it is stored elsewhere.
func recordDestination(r *remoting.Record) {
	r.Properties[propertyRealTopic] = r.Topic
	r.Properties[propertyRealQueue] = strconv.Itoa(r.Queue)
}

// armLevel schedules the delivery of a level's first message.
func (s *Server) armLevel(i int) {
	l, q := &s.delayLevels[i], s.topics[scheduleTopic].queues[i]
	l.next = max(l.next, q.first)
	if e := q.at(l.next); e != nil && !l.armed {
		l.armed = true
		s.at(e.stored.Add(s.config.DelayLevels[i]), func() { s.deliverDelayed(i) })
	}
}

// deliverDelayed delivers the first message of a level.
func (s *Server) deliverDelayed(i int) {
	l, q := &s.delayLevels[i], s.topics[scheduleTopic].queues[i]
	l.armed = false
	// If the log was trimmed since, the first message is another one that may not be due.
	if e := q.at(l.next); e != nil && !e.stored.Add(s.config.DelayLevels[i]).After(s.clock.Now()) {
		l.next++
		if r := e.record(); r.Properties[propertyRealTopic] == halfTopic {
			s.config.Logger.Error("a half message was delayed, which RocketMQ does not support: it is discarded", "key", r.Properties[propertyUniqueKey])
		} else {
			s.deliverWaiting(e)
		}
	}
	s.armLevel(i)
}

// rebuildLevels schedules all levels again after the schedule was cleared.
func (s *Server) rebuildLevels() {
	for i := range s.delayLevels {
		s.delayLevels[i].armed = false
		s.armLevel(i)
	}
}
