package rocketmqtest

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// maxHalfAge is the age at which a half message is discarded without a check-back, because a real broker deletes its files.
const maxHalfAge = 72 * time.Hour

// armChecks schedules the next round of check-backs if there are half messages. Rounds run at multiples of the interval.
func (s *Server) armChecks() {
	h := &s.halves
	if h.armed || h.next >= s.topics[halfTopic].queues[0].end() {
		return
	}
	h.armed = true
	passed := s.clock.Now().Sub(h.began).Truncate(s.config.CheckInterval)
	s.at(h.began.Add(passed+s.config.CheckInterval), s.checkRound)
}

// checkRound checks half messages in their order until it finds one that is too young. An open one is stored again at the end
// of the queue before its check-back is sent, so that the position in the queue only rises. (A real broker's round sleeps for
// a second first; this one doesn't.)
func (s *Server) checkRound() {
	h, q := &s.halves, s.topics[halfTopic].queues[0]
	h.armed = false
	start := s.clock.Now()
	if !h.write.IsZero() && !h.write.After(start) {
		s.writeMarkers() // due as well: when the clock jumps, the round may come first
	}
	if h.next < q.first { // the log was trimmed
		h.next = q.first
		maps.DeleteFunc(h.ended, func(offset int64, _ struct{}) bool { return offset < h.next })
	}
	// What is written during the round counts from the next one on.
	next := h.next
	for ; next < q.end(); next++ {
		if _, ended := h.ended[next]; ended {
			delete(h.ended, next)
			continue
		}
		// What the round stores may push the oldest out of the log.
		if e := q.at(next); e != nil && !s.checkHalf(e, start) {
			break
		}
	}
	h.next = next
	s.armChecks()
}

// checkHalf discards an open half message or sends a check-back, by its age and number of checks. It returns false if the half
// message is too young.
func (s *Server) checkHalf(e *entry, start time.Time) bool {
	r := e.record()
	// The count is raised first, so it counts rounds, not check-backs that reached a producer.
	times, counted := r.Properties[propertyCheckTimes]
	n, _ := strconv.Atoi(times)
	if counted && n >= s.config.CheckMax {
		s.discard(r)
		return true
	}
	r.Properties[propertyCheckTimes] = strconv.Itoa(n + 1)
	age := s.age(r)
	if age > maxHalfAge.Milliseconds() {
		s.discard(r)
		return true
	}
	if !e.stored.Before(start) {
		return false // stored in this round
	}
	own, immune := s.immunity(r)
	switch {
	case own && age < immune:
		return s.keepImmune(r)
	case !own && age >= 0 && age < immune: // an age below zero: the producer's clock is ahead
		return false
	}
	s.sendCheck(r)
	return true
}

// keepImmune stores again a half message that must not be checked yet. If its transaction ends meanwhile, the marker names
// the original, which the rounds have passed; so the copy is checked all the same once its immunity is over.
func (s *Server) keepImmune(r *remoting.Record) bool {
	if r.Properties[propertyPreparedOffset] == "" {
		r.Properties[propertyPreparedOffset] = strconv.FormatInt(r.QueueOffset, 10)
	}
	r.Properties[propertyWait] = "false"
	return s.putBack(r)
}

// putBack stores a half message again, at the end of its queue.
func (s *Server) putBack(r *remoting.Record) bool {
	r.Topic, r.Queue = halfTopic, 0
	if _, err := s.deliver(r); err != nil {
		s.config.Logger.Error("a half message could not be stored again; it is not checked any more", "error", err)
		return false
	}
	return true
}

// discard moves a half message to the topic of discarded ones.
func (s *Server) discard(r *remoting.Record) {
	t := s.topics[discardTopic]
	if t == nil {
		t = s.makeTopic(discardTopic, 1, 1, permReadWrite)
	}
	r.Queue = 0
	s.config.Logger.Info("a half message was discarded after its last check-back", "key", r.Properties[propertyUniqueKey], "topic", r.Properties[propertyRealTopic])
	if _, err := s.put(t, r); err != nil {
		s.config.Logger.Error("a discarded half message could not be stored; it is lost", "error", err)
	}
}

// sendCheck stores a half message again and sends a check-back to one of its producers (39). The check counts even if there is
// no producer.
func (s *Server) sendCheck(r *remoting.Record) {
	stored := r.Stored
	if !s.putBack(r) {
		return
	}
	producers := s.producers[r.Properties[propertyProducerGroup]]
	if len(producers) == 0 {
		s.config.Logger.Warn("a half message could not be checked: its group has no producer", "group", r.Properties[propertyProducerGroup])
		return
	}
	s.halves.turn++
	queue, err := strconv.Atoi(r.Properties[propertyRealQueue])
	if err != nil {
		return
	}
	r.Topic, r.Queue, r.Stored = r.Properties[propertyRealTopic], queue, stored
	r.Properties[propertyWait] = "false"
	body, err := r.Append(nil)
	if err != nil {
		s.config.Logger.Error("a check-back could not be encoded and is skipped", "error", err)
		return
	}
	key := r.Properties[propertyUniqueKey]
	producer := producers[s.halves.turn%len(producers)]
	if s.proxy != nil && producer.endpoint == s.proxy {
		s.proxyChecks[key] = struct{}{}
	}
	s.notify(producer, &remoting.Command{Code: remoting.CheckTransactionState, Body: body, Ext: map[string]string{
		"topic": halfTopic, "bname": s.config.Name, "msgId": key, "transactionId": key,
		"offsetMsgId":          remoting.OffsetID(s.broker.address, r.CommitLog),
		"commitLogOffset":      strconv.FormatInt(r.CommitLog, 10),
		"tranStateTableOffset": strconv.FormatInt(r.QueueOffset, 10),
	}})
}

// resumeCheck restarts the check-backs of a half message, open or discarded, with its count at 0 (323).
func (s *Server) resumeCheck(r *request) *remoting.Command {
	var half *entry
	if _, offset, err := remoting.ParseOffsetID(strings.TrimSpace(r.Ext["msgId"])); err == nil {
		half = s.log.at(offset)
	}
	if half == nil {
		return r.refuse(remoting.SystemError, "Exception was thrown when putting message back to %s.", halfTopic)
	}
	record := half.record()
	record.Properties[propertyCheckTimes] = "0"
	if !s.putBack(record) {
		return r.refuse(remoting.SystemError, "Put message back to %s failed.", halfTopic)
	}
	return r.respond()
}
