package rocketmqtest

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// wheel is a timer wheel: for each slot the offsets of its messages in the queue of the timer topic. A slot is as long as
// Config.TimerPrecision, is identified by its first millisecond, and fires at its end.
type wheel map[int64][]int64

// atOnce is the slot of a message that is delivered at once.
const atOnce = -1

// timerInstant returns when a timer fires, in milliseconds, and whether the message is a timer. A malformed number is an
// error.
func timerInstant(properties map[string]string, now int64) (int64, bool, error) {
	if _, turned := properties[propertyTimerOut]; turned {
		return 0, false, nil
	}
	for _, p := range []struct {
		name        string
		since, unit int64
	}{
		{propertyTimerDelaySeconds, now, 1000}, {propertyTimerDelayMillis, now, 1}, {propertyTimerDeliver, 0, 1},
	} {
		if s, set := properties[p.name]; set {
			n, err := strconv.ParseInt(s, 10, 64)
			return p.since + n*p.unit, true, err
		}
	}
	return 0, false, nil
}

// slotOf returns the slot of a message by its properties, or a refusal.
func (s *Server) slotOf(r *request, record *remoting.Record) (int64, *remoting.Command) {
	now := s.clock.Now().UnixMilli()
	instant, set, err := s.instantOf(record.Properties, now)
	switch _, deletes := s.deletes(record.Properties); {
	case !set:
		return atOnce, nil
	case s.config.NoTimers && !s.config.DMS:
		return 0, r.refuse(remoting.SystemError, "accurate timer message is not enabled, timerWheelEnable is false")
	case err != nil, instant > now && instant-now > s.config.TimerMaxDelay.Milliseconds(), instant <= now && deletes:
		return 0, r.refuse(remoting.MessageIllegal, "timer message illegal, the delay time should not be bigger than the max delay %dms; or if set del msg, the delay time should be bigger than the current time", s.config.TimerMaxDelay.Milliseconds())
	case instant <= now:
		return atOnce, nil
	}
	precision := s.precision()
	return (instant - 1) / precision * precision, nil // an instant on the edge of two slots belongs to the earlier one
}

// precision is Config.TimerPrecision in milliseconds.
func (s *Server) precision() int64 { return s.config.TimerPrecision.Milliseconds() }

// instantOf is timerInstant for the configured version or DMS.
func (s *Server) instantOf(properties map[string]string, now int64) (int64, bool, error) {
	switch {
	case s.config.DMS:
		return dmsInstant(properties)
	case s.config.Version == RocketMQ49: // knows none of these properties
		return 0, false, nil
	}
	return timerInstant(properties, now)
}

// deletes returns the key of the timer that a message deletes, and whether it deletes one.
func (s *Server) deletes(properties map[string]string) (key string, does bool) {
	name := propertyTimerDelete
	if s.config.DMS {
		name = propertyCancelScheduled
	}
	key, does = properties[name]
	return key, does
}

// timerKey returns the key by which a timer can be deleted.
func (s *Server) timerKey(topic, uniqueKey string) string {
	if s.config.DMS || s.config.Version == RocketMQ55 {
		return uniqueKey
	}
	return topic + "+" + uniqueKey
}

// putTimer stores a record that is delivered to r.Topic and r.Queue at the end of a slot.
func (s *Server) putTimer(r *remoting.Record, slot int64) (*entry, error) {
	r.Properties[propertyTimerOut] = strconv.FormatInt(slot, 10)
	recordDestination(r)
	r.Queue = 0
	e, err := s.put(s.topics[timerTopic], r)
	if err != nil {
		return nil, err
	}
	if s.wheel[slot] == nil {
		s.armSlot(slot)
	}
	s.wheel[slot] = append(s.wheel[slot], e.queueOffset)
	return e, nil
}

// armSlot schedules the end of a slot.
func (s *Server) armSlot(slot int64) {
	s.at(time.UnixMilli(slot+s.precision()), func() { s.fireSlot(slot) })
}

// fireSlot delivers the messages of a slot, except those that other messages in it delete.
func (s *Server) fireSlot(slot int64) {
	offsets := s.wheel[slot]
	delete(s.wheel, slot)
	deleted := map[string]bool{}
	var due []*entry
	for _, offset := range offsets {
		e := s.topics[timerTopic].queues[0].at(offset)
		if e == nil {
			continue // the log was trimmed, and the message is lost
		}
		if key, deletes := s.deletes(e.record().Properties); deletes {
			deleted[key] = true
		} else {
			due = append(due, e)
		}
	}
	now := s.clock.Now().UnixMilli()
	for _, e := range due {
		if p := e.record().Properties; deleted[s.timerKey(p[propertyRealTopic], p[propertyUniqueKey])] {
			continue
		}
		enqueued := e.stored.UnixMilli() / s.precision() * s.precision()
		s.deliverWaiting(e, propertyTimerEnqueue, strconv.FormatInt(enqueued, 10), propertyTimerDequeue, strconv.FormatInt(now, 10))
	}
}

// rebuildWheel schedules all slots again after the schedule was cleared.
func (s *Server) rebuildWheel() {
	for _, slot := range slices.Sorted(maps.Keys(s.wheel)) {
		s.armSlot(slot)
	}
}
