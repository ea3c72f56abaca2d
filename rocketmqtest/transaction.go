package rocketmqtest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// maxMarkers is the size in bytes from which markers are written at once.
const maxMarkers = 4096

// halves is the state of half messages beside the stored messages. Offsets are those of the queue of half messages.
type halves struct {
	began time.Time // the first round of checks is an interval later
	next  int64     // offset of the first that the check-back rounds have not passed
	armed bool      // a round is scheduled
	turn  int       // number of check-backs sent, by which producers take turns

	ended map[int64]struct{} // offsets from next on that have a written marker
	// Markers that are in memory only, where a crash loses them.
	unwritten []int64
	bytes     int       // of them
	write     time.Time // when they will be written; zero: never, there are none
}

// newHalves returns the state of a broker without half messages.
func newHalves(now time.Time) halves {
	return halves{began: now, ended: map[int64]struct{}{}}
}

// isHalf reports whether a message is a half message. A message that is retried is none, though it has the properties of the
// transaction that it came from.
func isHalf(r *remoting.Record) bool {
	n, _ := delayLevel(r.Properties)
	return strings.EqualFold(r.Properties[propertyTransaction], "true") && (r.Reconsumed <= 0 || n <= 0)
}

// makeHalf turns a message into a half message: it records its topic and directs it to the topic of half messages.
func (s *Server) makeHalf(r *remoting.Record) {
	if key := r.Properties[propertyUniqueKey]; key != "" && !s.is4() {
		r.Properties[propertyTransactionID] = key
	}
	recordDestination(r)
	r.Topic, r.Queue = halfTopic, 0
}

const noRemark = "not set any response code" // the remark of a real broker in responses that have none

// endTransaction commits a half message or rolls it back (37). Like a real broker it does not check whether that was done
// before: a half message that is committed twice is delivered twice.
func (s *Server) endTransaction(r *request) *remoting.Command {
	if refusal := r.requireNumbers("tranStateTableOffset", "commitLogOffset", "commitOrRollback"); refusal != nil {
		return refusal
	}
	kind := r.number("commitOrRollback")
	switch kind {
	case remoting.TransactionCommit, remoting.TransactionRollback:
	case remoting.TransactionUnknown:
		return nil
	default:
		return r.refuse(remoting.SystemError, "commitOrRollback field wrong")
	}
	e := s.log.at(r.number("commitLogOffset"))
	if e == nil {
		return r.refuse(remoting.SystemError, "Find prepared transaction message failed")
	}
	half := e.record()
	if r.Ext["fromTransactionCheck"] != "true" && s.immunityOver(half) {
		return r.refuse(remoting.IllegalOperation, noRemark)
	}
	if half.Properties[propertyProducerGroup] != r.Ext["producerGroup"] {
		return r.refuse(remoting.SystemError, "The producer group wrong")
	}
	if half.QueueOffset != r.number("tranStateTableOffset") {
		return r.refuse(remoting.SystemError, "The transaction state table offset wrong")
	}
	if kind == remoting.TransactionRollback {
		s.markEnded(e)
		return r.refuse(remoting.Success, noRemark)
	}
	final, err := s.finalOf(half)
	if err != nil {
		return r.refuse(remoting.SystemError, "%v", err)
	}
	if _, refusal := s.place(r, final); refusal != nil {
		return refusal
	}
	s.markEnded(e)
	return r.respond()
}

// finalOf returns the message that the commit of a half message delivers.
func (s *Server) finalOf(half *remoting.Record) (*remoting.Record, error) {
	queue, err := strconv.Atoi(half.Properties[propertyRealQueue])
	if err != nil {
		return nil, errors.New("java.lang.NumberFormatException: Cannot parse null string") // not a half message at all
	}
	if t := s.topics[half.Properties[propertyRealTopic]]; t == nil || queue < 0 || queue >= len(t.queues) {
		// A real broker stores it all the same, where it can't be read.
		return nil, fmt.Errorf("topic %s has no queue %d any more", half.Properties[propertyRealTopic], queue)
	}
	final := *half
	final.Topic, final.Queue = half.Properties[propertyRealTopic], queue
	final.SysFlag = half.SysFlag&^remoting.FlagTransaction | remoting.TransactionCommit
	final.PreparedOffset = half.CommitLog
	if s.is55() {
		delete(final.Properties, propertyRealTopic)
		delete(final.Properties, propertyRealQueue)
	}
	if n, _ := delayLevel(final.Properties); n > 0 {
		delete(final.Properties, propertyTransaction)
	}
	return &final, nil
}

// immunityOver reports whether a half message had a check immunity time of its own and it has passed. Then only the response
// to a check-back ends the half message.
func (s *Server) immunityOver(half *remoting.Record) bool {
	own, immune := s.immunity(half)
	return own && s.config.Version != RocketMQ49 && s.age(half) > immune
}

// immunity returns for how many milliseconds a half message is not checked, and whether its own property sets the time.
func (s *Server) immunity(half *remoting.Record) (own bool, millis int64) {
	value := half.Properties[propertyCheckImmunity]
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds == -1 {
		return value != "", s.config.TransactionTimeout.Milliseconds()
	}
	return true, seconds * 1000
}

// age returns how many milliseconds ago a message was born, by the clock of its producer.
func (s *Server) age(r *remoting.Record) int64 {
	return s.clock.Now().UnixMilli() - r.Born.UnixMilli()
}

// markEnded adds a marker that a half message has ended. Until the marker is written, a crash loses it and check-backs ignore
// it.
//
// The marker is the offset of e in its queue. As in a real broker it is taken for an offset of the queue of half messages,
// even if the half message was delayed and e is in a queue of another topic.
func (s *Server) markEnded(e *entry) {
	h := &s.halves
	if e.queue.id != 0 {
		return
	}
	h.unwritten = append(h.unwritten, e.queueOffset)
	h.bytes += len(strconv.FormatInt(e.queueOffset, 10)) + 1
	switch {
	case h.bytes > maxMarkers || s.config.Version == RocketMQ49:
		s.writeMarkers()
	case h.write.IsZero():
		s.armMarkers()
	}
}

// armMarkers schedules the writing of the markers that are in memory.
func (s *Server) armMarkers() {
	due := s.clock.Now().Add(s.config.OpBatchInterval)
	s.halves.write = due
	s.at(due, func() {
		if s.halves.write.Equal(due) {
			s.writeMarkers()
		}
	})
}

// writeMarkers stores the markers that are in memory.
func (s *Server) writeMarkers() {
	h := &s.halves
	var body []byte
	for _, offset := range h.unwritten {
		body = append(strconv.AppendInt(body, offset, 10), ',')
		if offset >= h.next {
			h.ended[offset] = struct{}{}
		}
	}
	if s.config.Version == RocketMQ49 {
		body = body[:len(body)-1]
	}
	s.dropVolatileMarkers()
	_, err := s.put(s.topics[opTopic], &remoting.Record{
		Born: s.clock.Now(), BornHost: s.broker.address, Properties: map[string]string{propertyTag: "d", propertyWait: "true"}, Body: body,
	})
	if err != nil {
		s.config.Logger.Error("markers could not be written; the half messages are checked again", "error", err)
	}
}

// dropVolatileMarkers forgets the markers that are in memory only, as a crash does.
func (s *Server) dropVolatileMarkers() {
	h := &s.halves
	h.unwritten, h.bytes, h.write = nil, 0, time.Time{}
}

// rebuildHalves schedules markers and check-backs again after the schedule was cleared.
func (s *Server) rebuildHalves() {
	if len(s.halves.unwritten) > 0 {
		s.armMarkers()
	}
	s.halves.armed = false
	s.armChecks()
}
