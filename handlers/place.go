package handlers

import (
	"errors"
	"time"

	"github.com/rocketflow/rocketflow"
)

var errTooOld = errors.New("too old to be checked for duplication")

const (
	firstRecheck = time.Second // of a gap; then doubled
	lastRecheck  = 30 * time.Second
)

// spot is what is known of a stream's position.
type spot struct {
	last int64 // the sequence of the last event that was handled; 0: none
	head int64 // the lowest sequence that is parked; 0: none

	// What lies between was passed over without being handled.
	skippedAfter, skippedBefore int64
}

// errLate: what the event was to be handled before has been handled.
var errLate = errors.New("came after its followers had been accepted without it")

// late makes an event whose place in its stream is gone one without order: as a dead letter it then holds nobody.
func late(e rocketflow.Event) (rocketflow.Event, parking) {
	e.Sequence, e.Previous = 0, 0
	return e, parking{reason: DeadLetter, after: forever, err: errLate}
}

// gapRecheck returns when to look at a gap again that has been parked for so long.
func gapRecheck(waited time.Duration) time.Duration {
	return min(max(waited, firstRecheck), lastRecheck)
}

// place decides what becomes of an ordered event.
func (c *consumer) place(e rocketflow.Event, s spot, now time.Time) fate {
	switch {
	case s.skippedAfter < e.Sequence && e.Sequence < s.skippedBefore:
		return tooLate
	case e.Sequence <= s.last:
		return duplicate
	case s.head != 0 && e.Sequence > s.head:
		return behind
	case s.head != 0 && e.Sequence == s.head:
		return parked
	case s.last > 0 && e.Previous <= s.last:
		return run
	case s.last > 0:
		return early
	case e.Sequence < now.Add(-c.cfg.PositionRetention).UnixMicro():
		return tooOld
	case e.Previous == 0:
		return run
	}
	return early
}

// adoptable tells whether an event that has no predecessor here will never see it come.
func (c *consumer) adoptable(e rocketflow.Event, last int64, now time.Time) bool {
	return last == 0 && (e.Previous < c.born[e.Topic].UnixMicro() || e.Previous < now.Add(-c.cfg.PositionRetention).UnixMicro())
}

// expired tells whether the inbox may have forgotten an event without order.
func (c *consumer) expired(e rocketflow.Event, now time.Time) bool {
	return usesInbox(e) && !e.Time.IsZero() && e.Time.Before(now.Add(-c.cfg.InboxRetention))
}

// usesInbox: a timeout's event has its own guard, the row that its firing deletes.
func usesInbox(e rocketflow.Event) bool { return !e.Ordered() && e.TimeoutName == "" }
