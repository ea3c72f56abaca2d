package rocketmqtest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// maxMarkers is how many bytes of markers are written at once.
const maxMarkers = 4096

// halves is what is known of half messages beside the messages themselves. Offsets are those of the queue of half
// messages.
type halves struct {
	began time.Time // the first round of checks is an interval later
	next  int64     // the first that the rounds have not passed
	armed bool      // the agenda has a round
	turn  int       // counts the checks sent: who is asked

	ended map[int64]struct{} // of those from next on: what the written markers say
	// The marker of an end is first in memory only.
	unwritten []int64
	bytes     int       // of them
	write     time.Time // when they will be written; zero: never, there are none
}

func newHalves(now time.Time) halves {
	return halves{began: now, ended: map[int64]struct{}{}}
}

// isHalf tells whether a message waits for the end of its transaction. One that is retried doesn't, though it bears the
// properties of the transaction that it came from.
func isHalf(r *remoting.Record) bool {
	n, _ := delayLevel(r.Properties)
	return strings.EqualFold(r.Properties[propertyTransaction], "true") && (r.Reconsumed <= 0 || n <= 0)
}

// makeHalf sets a message aside as a half message.
func makeHalf(r *remoting.Record) {
	if key := r.Properties[propertyUniqueKey]; key != "" {
		r.Properties[propertyTransactionID] = key
	}
	recordDestination(r)
	r.Topic, r.Queue = halfTopic, 0
}

const noRemark = "not set any response code" // what the broker says where it meant to say nothing

// endTransaction commits a half message or rolls it back (37). It looks at the half message alone, not at whether it was
// ended before: what is committed twice is delivered twice.
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

// finalOf makes the message that a commit of a half message delivers.
func (s *Server) finalOf(half *remoting.Record) (*remoting.Record, error) {
	queue, err := strconv.Atoi(half.Properties[propertyRealQueue])
	if err != nil {
		return nil, errors.New("java.lang.NumberFormatException: Cannot parse null string") // not a half message at all
	}
	if t := s.topics[half.Properties[propertyRealTopic]]; t == nil || queue < 0 || queue >= len(t.queues) {
		// The real broker stores it all the same, where nobody ever finds it.
		return nil, fmt.Errorf("topic %s has no queue %d any more", half.Properties[propertyRealTopic], queue)
	}
	final := *half
	final.Topic, final.Queue = half.Properties[propertyRealTopic], queue
	final.SysFlag = half.SysFlag&^remoting.FlagTransaction | remoting.TransactionCommit
	final.PreparedOffset = half.CommitLog
	if s.config.Version == RocketMQ55 {
		delete(final.Properties, propertyRealTopic)
		delete(final.Properties, propertyRealQueue)
	}
	if n, _ := delayLevel(final.Properties); n > 0 {
		delete(final.Properties, propertyTransaction)
	}
	return &final, nil
}

// immunityOver tells whether a half message had a time of its own to be ended in, and this has passed: then only the
// answer to a check ends it.
func (s *Server) immunityOver(half *remoting.Record) bool {
	own, immune := s.immunity(half)
	return own && s.config.Version != RocketMQ49 && s.age(half) > immune
}

// immunity is for how many milliseconds a half message isn't checked, and whether it says so itself.
func (s *Server) immunity(half *remoting.Record) (own bool, millis int64) {
	value := half.Properties[propertyCheckImmunity]
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds == -1 {
		return value != "", s.config.TransactionTimeout.Milliseconds()
	}
	return true, seconds * 1000
}

// age is how many milliseconds ago a message was born, by the clock of who sent it.
func (s *Server) age(r *remoting.Record) int64 {
	return s.clock.Now().UnixMilli() - r.Born.UnixMilli()
}

// markEnded notes that a half message has ended. Until the markEnded is written, a crash loses it and checks don't see it.
//
// The markEnded is for an offset of the queue that e is in. As with the real broker it is taken for one of the queue of half
// messages, even where a half message was delayed and is in another topic's queue of the same number.
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
		s.config.Logger.Error("can't write markers", "err", err)
	}
}

// dropVolatileMarkers forgets the markers that are in memory only, as a crash does.
func (s *Server) dropVolatileMarkers() {
	h := &s.halves
	h.unwritten, h.bytes, h.write = nil, 0, time.Time{}
}

// rebuildHalves arms markers and checks anew after the agenda was cleared.
func (s *Server) rebuildHalves() {
	if len(s.halves.unwritten) > 0 {
		s.armMarkers()
	}
	s.halves.armed = false
	s.armChecks()
}
