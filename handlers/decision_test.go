package handlers

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// TestDecisions walks through what becomes of an ordered event that is delivered (parked empty) or parked for a reason.
func TestDecisions(t *testing.T) {
	t.Parallel()
	now := time.UnixMicro(1_800_000_000_000_000)
	at := func(d time.Duration) int64 { return now.Add(d).UnixMicro() }
	id, other := uuid.New(), uuid.New().String()
	for _, c := range []struct {
		name               string
		sequence, previous int64
		at                 inbox.Position
		parked             inbox.Reason
		waited             time.Duration
		unhandled, unknown bool // its handler is recorded and not here; none is recorded
		paused             bool
		begin, born        time.Time
		want               decision
	}{
		{name: "the first of a stream", sequence: at(0), want: run},
		{name: "the next", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, want: run},
		{name: "the next, whose predecessor expired", sequence: 12, at: inbox.Position{Last: 10}, want: run},
		{name: "again", sequence: 10, previous: 9, at: inbox.Position{Last: 10}, want: duplicate},
		{name: "behind a gap", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, want: early},
		{name: "behind a parked one", sequence: 14, previous: 12, at: inbox.Position{Last: 10, Head: 12, HeadPrevious: 10}, want: behind},
		{name: "linked as a parked one is", sequence: 14, previous: 10, at: inbox.Position{Last: 10, Head: 12, HeadPrevious: 10}, want: behind},
		{name: "past a lost event that is parked", sequence: 14, previous: 10, at: inbox.Position{Last: 10, Head: 12, HeadPrevious: 11}, want: run},
		{name: "past a lost event, linked to one before a lost event that was handled", sequence: 14, previous: 9, at: inbox.Position{Last: 10, Head: 12, HeadPrevious: 11}, want: run},
		{name: "the first, past a lost event", sequence: at(0), at: inbox.Position{Head: at(-2), HeadPrevious: at(-3)}, born: now.Add(-time.Hour), want: run},
		{name: "not past what may be adopted", sequence: at(0), at: inbox.Position{Head: at(-2), HeadPrevious: at(-3)}, born: now, want: behind},
		{name: "parked and delivered again", sequence: 12, previous: 11, at: inbox.Position{Last: 10, Head: 12, HeadID: id.String()}, want: alreadyParked},
		{name: "another with the place of a parked one", sequence: 12, previous: 11, at: inbox.Position{Last: 10, Head: 12, HeadID: other}, want: conflict},
		{name: "in a stretch that was passed over", sequence: 12, previous: 11, at: inbox.Position{Last: 30, Skipped: []int64{1, 3, 11, 14}}, want: tooLate},
		{name: "in such a stretch, before the beginning", sequence: 12, previous: 11, at: inbox.Position{Last: 30, Skipped: []int64{11, 14}}, begin: now, want: duplicate},
		{name: "parked, before the beginning, the position moved past it", sequence: 12, previous: 11, at: inbox.Position{Last: 14}, parked: inbox.Gap, begin: now, want: duplicate},
		{name: "between two such stretches", sequence: 12, previous: 11, at: inbox.Position{Last: 30, Skipped: []int64{1, 3, 13, 16}}, want: duplicate},
		{name: "far ahead of the clock", sequence: at(2 * time.Hour), previous: 10, at: inbox.Position{Last: 10}, want: tooFarAhead},
		{name: "a little ahead of the clock", sequence: at(time.Minute), previous: 10, at: inbox.Position{Last: 10}, want: run},
		{name: "of a stream that may have been forgotten", sequence: at(-31 * 24 * time.Hour), want: tooOld},
		{name: "without a handler", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, unknown: true, want: skip},
		{name: "its handler is elsewhere", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, unhandled: true, want: unhandled},
		{name: "before the beginning", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, begin: now, want: skip},
		{name: "the first after the beginning", sequence: at(-time.Minute), previous: at(-2 * time.Hour), begin: now.Add(-time.Hour), want: run},

		{name: "parked, its gap filled", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, parked: inbox.Gap, want: run},
		{name: "parked, its gap stands", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, parked: inbox.Gap, waited: time.Hour, want: early},
		{name: "parked, to be tried again", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, parked: inbox.Retry, want: run},
		{name: "parked, to be tried again elsewhere", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, parked: inbox.Retry, unhandled: true, want: unhandled},
		{name: "parked, its handler retired", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, parked: inbox.Unhandled, unknown: true, want: skip},
		{name: "parked, the position moved past it", sequence: 12, previous: 11, at: inbox.Position{Last: 14}, parked: inbox.Gap, want: tooLate},
		{name: "moved to Postgres beside a copy that was handled", sequence: 12, previous: 11, at: inbox.Position{Last: 14}, parked: inbox.Busy, want: duplicate},
		{name: "parked and older than the consumer", sequence: at(0), previous: at(-2 * time.Hour), parked: inbox.Gap, born: now.Add(-time.Hour), want: early},
		{name: "adopted", sequence: at(0), previous: at(-2 * time.Hour), parked: inbox.Gap, born: now.Add(-time.Hour), waited: time.Minute, want: run},
		{name: "paused", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, paused: true, want: paused},
		{name: "paused, its handler elsewhere", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, paused: true, unhandled: true, want: paused},
		{name: "paused, without a handler", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, paused: true, unknown: true, want: skip},
		{name: "paused, before the beginning", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, paused: true, begin: now, want: skip},
		{name: "paused, behind a gap", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, paused: true, want: early},
		{name: "paused, behind a paused one", sequence: 14, previous: 12, at: inbox.Position{Last: 10, Head: 12, HeadPrevious: 10}, paused: true, want: behind},
		{name: "paused, again", sequence: 10, previous: 9, at: inbox.Position{Last: 10}, paused: true, want: duplicate},
		{name: "paused, to be tried again", sequence: 12, previous: 11, at: inbox.Position{Last: 10}, parked: inbox.Retry, paused: true, want: paused},
		{name: "paused, its gap filled", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, parked: inbox.Gap, paused: true, want: paused},
		{name: "paused, the position moved past it", sequence: 12, previous: 11, at: inbox.Position{Last: 14}, parked: inbox.Paused, want: tooLate},
		{name: "resumed", sequence: 12, previous: 10, at: inbox.Position{Last: 10}, parked: inbox.Paused, want: run},
		{name: "never adopted", sequence: at(0), previous: at(-time.Minute), parked: inbox.Gap, born: now.Add(-time.Hour), waited: time.Hour, want: early},
	} {
		e := rocketflow.Event{ID: id, Sequence: c.sequence, Previous: c.previous, Time: now.Add(-time.Minute)}
		r := conditions{
			now: now, maxAhead: time.Hour, adoptAfter: time.Minute, positionRetention: 30 * 24 * time.Hour, begin: c.begin, born: c.born,
			handled: !c.unhandled && !c.unknown, recorded: !c.unknown, paused: c.paused,
		}
		in := situation{event: e, position: c.at}
		if c.parked != "" {
			in.row = &inbox.Record{Event: e, Reason: c.parked, Waited: c.waited}
		}
		got := decide(in, r)
		if got != c.want {
			t.Errorf("%s: decision %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDecisionsBesidesTheOrder walks through what is decided by more than an event's place in its stream.
func TestDecisionsBesidesTheOrder(t *testing.T) {
	t.Parallel()
	now := time.UnixMicro(1_800_000_000_000_000)
	r := conditions{now: now, maxAhead: time.Hour, inboxRetention: time.Hour, positionRetention: time.Hour, adoptAfter: time.Minute, handled: true, recorded: true}
	loose := rocketflow.Event{ID: uuid.New(), Time: now.Add(-time.Minute)}
	digest := stored.Digest(loose)
	other := digest + 1
	old, oldID, timeout, ordered := loose, loose, loose, loose
	old.Time = now.Add(-2 * time.Hour)
	oldID.ID = uuid.MustParse("0188a000-0000-7000-8000-000000000000") // of May 2023
	timeout.TimeoutName, timeout.Time = "payment", now.Add(-2*time.Hour)
	ordered.Sequence, ordered.Previous = 12, 10
	at := inbox.Position{Last: 10}
	fresh := &inbox.Entry{Fresh: true}
	parked := func(e rocketflow.Event, reason inbox.Reason) *inbox.Record {
		return &inbox.Record{Event: e, Reason: reason}
	}
	failure := func(action RetryAction) *outcome { return &outcome{action: action} }
	for _, c := range []struct {
		name string
		in   situation
		want decision
	}{
		{"without order", situation{event: loose, entry: fresh}, run},
		{"handled before", situation{event: loose, entry: &inbox.Entry{Digest: &digest}}, duplicate},
		{"handled before, by a version that kept no digest", situation{event: loose, entry: &inbox.Entry{}}, duplicate},
		{"another content with its identity", situation{event: loose, entry: &inbox.Entry{Digest: &other}}, conflict},
		{"a second copy in one turn", situation{event: loose, entry: fresh, repeated: true}, duplicate},
		{"delivered again while parked", situation{event: loose, entry: fresh, alreadyParked: true}, alreadyParked},
		{"older than the inbox by its time", situation{event: old, entry: fresh}, tooOld},
		{"older than the inbox by its id", situation{event: oldID, entry: fresh}, tooOld},
		{"older than the inbox, but parked in time", situation{event: old, entry: fresh, row: parked(old, inbox.Retry)}, run},
		{"a timeout has its own guard", situation{event: timeout}, run},
		{"no event", situation{event: loose, unreadable: true}, unreadable},
		{"no event, delivered again", situation{event: loose, unreadable: true, alreadyParked: true}, alreadyParked},
		{"its stream went past parked events in this turn", situation{event: ordered, position: at, forked: true}, undecided},
		{"delivered again past the head while parked", situation{event: ordered, position: at, alreadyParked: true}, alreadyParked},
		{"a follower whose predecessor was handled", situation{event: ordered, position: at, row: parked(ordered, inbox.Gap), follows: true}, run},
		{"a follower that waits for another", situation{event: ordered, position: inbox.Position{Last: 5}, row: parked(ordered, inbox.Gap), follows: true}, undecided},

		{"failed", situation{event: ordered, position: at, failure: failure(ActionRetry)}, failed},
		{"failed without order", situation{event: loose, failure: failure(ActionRetry)}, failed},
		{"failed for good", situation{event: ordered, position: at, failure: failure(ActionDeadLetter)}, failed},
		{"failed again", situation{event: ordered, position: at, row: parked(ordered, inbox.Retry), failure: failure(ActionWait)}, failed},
		{"not needed", situation{event: ordered, position: at, failure: failure(ActionDiscard)}, discarded},
		{"not needed, without order", situation{event: loose, entry: fresh, failure: failure(ActionDiscard)}, discarded},
		{"failed here, handled elsewhere meanwhile", situation{event: ordered, position: inbox.Position{Last: 12}, failure: failure(ActionRetry)}, duplicate},
		{"failed here, parked elsewhere meanwhile", situation{event: loose, alreadyParked: true, failure: failure(ActionRetry)}, alreadyParked},
	} {
		if got := decide(c.in, r); got != c.want {
			t.Errorf("%s: decision %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDecisionsWithoutTheHandler walks through what becomes of an event without order whose handler is in another process.
func TestDecisionsWithoutTheHandler(t *testing.T) {
	t.Parallel()
	now := time.UnixMicro(1_800_000_000_000_000)
	r := conditions{now: now, maxAhead: time.Hour, inboxRetention: time.Hour, positionRetention: time.Hour, recorded: true}
	e := rocketflow.Event{ID: uuid.New(), Time: now.Add(-time.Minute)}
	old, timeout := e, e
	old.Time = now.Add(-2 * time.Hour)
	timeout.TimeoutName = "payment"
	digest := stored.Digest(e)
	other := digest + 1
	parked := &inbox.Record{Event: e, Reason: inbox.Retry}
	for _, c := range []struct {
		name string
		in   situation
		want decision
	}{
		{"not in the inbox", situation{event: e}, unhandled},
		{"not in the inbox, and older than it", situation{event: old}, unhandled},
		{"a copy was handled", situation{event: e, entry: &inbox.Entry{Digest: &digest}}, duplicate},
		{"a copy was handled, by a version that kept no digest", situation{event: e, entry: &inbox.Entry{}}, duplicate},
		{"another content with its identity was handled", situation{event: e, entry: &inbox.Entry{Digest: &other}}, conflict},
		{"parked", situation{event: e, row: parked}, unhandled},
		{"parked, and a copy was handled", situation{event: e, row: parked, entry: &inbox.Entry{Digest: &digest}}, duplicate},
		{"delivered again while parked", situation{event: e, entry: &inbox.Entry{}, alreadyParked: true}, alreadyParked},
		{"a timeout, which uses no inbox", situation{event: timeout}, unhandled},
	} {
		if got := decide(c.in, r); got != c.want {
			t.Errorf("%s: decision %d, want %d", c.name, got, c.want)
		}
	}
	r.recorded = false
	if got := decide(situation{event: e}, r); got != skip {
		t.Errorf("no process has its handler: decision %d, want %d", got, skip)
	}
}
