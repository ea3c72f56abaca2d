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
	// adoptAfter is how long the first event that a consumer meets of a stream waits for a predecessor that is older
	// than the consumer: it may be on its way all the same.
	adoptAfter = 2500 * time.Millisecond
)

// gapRecheck returns when to look at a gap again that has been parked for so long.
func gapRecheck(waited time.Duration) time.Duration {
	return min(max(waited, firstRecheck), lastRecheck)
}

// place decides what becomes of an ordered event, given the last sequence that was handled of its stream (0: none) and
// the lowest that is parked (0: none).
func (c *consumer) place(e rocketflow.Event, last, head int64, now time.Time) fate {
	switch {
	case e.Sequence <= last:
		return duplicate
	case head != 0 && e.Sequence > head:
		return behind
	case head != 0 && e.Sequence == head:
		return parked
	case last > 0 && e.Previous <= last:
		return run
	case last > 0:
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
