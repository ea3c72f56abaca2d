package operate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Explanation says what happened to an event or to everything with a key, what it waits for, and what to do. Times are Postgres'.
type Explanation struct {
	ID    string          `json:"id"`    // what was asked for
	Kind  ExplanationKind `json:"kind"`  // what that is
	Title string          `json:"title"` // the same in a line for people
	Now   time.Time       `json:"now"`   // when it was explained
	// Timeline says what is recorded, the oldest first. What has no recorded time comes after what came before it at the latest.
	Timeline []Entry `json:"timeline"`
	// Omitted is how many entries are left out, at least, because there are too many: the oldest of streams and of histories, and what
	// handlers published while they handled an event beyond 50 in a schema.
	Omitted int `json:"omitted,omitempty"`
	// Verdict is what matters most.
	Verdict Verdict `json:"verdict"`
	// Also is what is open beside that, what matters most first.
	Also []Verdict `json:"also,omitempty"`
	// Broker says what the broker was not asked, or could not answer. Empty: it was asked, or there was nothing to ask.
	Broker string `json:"broker,omitempty"`
	// Looked are the schemas that were read, and Unread those that could not be.
	Looked []Place        `json:"looked"`
	Unread []UnreadSchema `json:"unread,omitempty"`
}

// ExplanationKind says what an Explanation is about.
type ExplanationKind string

// The values of ExplanationKind.
const (
	ExplainsEvent   ExplanationKind = "event"
	ExplainsKey     ExplanationKind = "key" // a subject, the key of a saga or the key of a timeout, which are often the same
	ExplainsNothing ExplanationKind = "unknown"
)

// Place is a schema that was read.
type Place struct {
	Service string `json:"service"`
	Schema  string `json:"schema"`
	// OldestEvent is when the oldest event that the outbox keeps was recorded; zero: it has none.
	OldestEvent time.Time `json:"oldest_event,omitzero"`
	// InboxRetention and PositionRetention are how long its consumers record which events they have handled, without and with order.
	InboxRetention    time.Duration `json:"inbox_retention,omitempty"`
	PositionRetention time.Duration `json:"position_retention,omitempty"`
}

// Entry is a line of a time line.
type Entry struct {
	At      time.Time `json:"at,omitzero"` // zero: not recorded
	Service string    `json:"service"`     // or "broker"
	Text    string    `json:"text"`        // what happened, in a line for people
	EventID uuid.UUID `json:"event_id,omitzero"`
	Problem bool      `json:"problem,omitempty"` // something failed or is late

	after   time.Time // the place in the time line of an entry without a recorded time
	steered uuid.UUID // the event of a timeout that an operator moved or disarmed: the entry of the audit says more, if there is one
}

func (e Entry) place() time.Time {
	if e.At.IsZero() {
		return e.after
	}
	return e.At
}

// VerdictState is the outcome of an Explanation.
type VerdictState string

// The values of VerdictState, the gravest last.
const (
	VerdictDone    VerdictState = "done"
	VerdictWaiting VerdictState = "waiting" // it goes on by itself
	VerdictUnknown VerdictState = "unknown" // what is recorded doesn't say
	VerdictStopped VerdictState = "stopped" // it goes on only if somebody does something
	VerdictLost    VerdictState = "lost"    // the broker has lost the event, or nothing is recorded of a handling that happened
)

// Verdict says whether something is done or, if not, what it waits for, since when and why, and what helps.
type Verdict struct {
	State VerdictState `json:"state"`
	// What is what is done; For is what is waited for.
	What    string    `json:"what,omitempty"`
	For     string    `json:"for,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Because string    `json:"because,omitempty"`
	// Command is the command that helps or shows more. Empty: nothing needs to be done.
	Command string `json:"command,omitempty"`

	rank int
}

// gravity orders the states.
func (s VerdictState) gravity() int {
	return slices.Index([]VerdictState{VerdictDone, VerdictWaiting, VerdictUnknown, VerdictStopped, VerdictLost}, s)
}

// conclude makes the gravest verdict the Verdict, and the others that are open Also.
func (x *Explanation) conclude(list []Verdict) {
	slices.SortStableFunc(list, func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(b.State.gravity(), a.State.gravity()), cmp.Compare(a.rank, b.rank), a.Since.Compare(b.Since))
	})
	commands := map[string]bool{}
	done := 0
	for i, v := range list {
		if v.State == VerdictDone {
			done++
		}
		switch {
		case i == 0:
			x.Verdict = v
			commands[v.Command] = true
		case commands[v.Command]: // the same, seen from another event
		case v.State != VerdictDone && len(x.Also) < maxAlso:
			x.Also = append(x.Also, v)
			commands[v.Command] = true
		}
	}
	if x.Verdict.State == VerdictDone {
		x.Broker = "" // nothing is left that it could say
	}
	if x.Verdict.State == VerdictDone && done > 1 {
		x.Verdict.What += fmt.Sprintf(", and %d more are done", done-1)
	}
	if x.Verdict.State == VerdictDone {
		x.Verdict.What += x.butUnread()
	}
	slices.SortStableFunc(x.Timeline, func(a, b Entry) int { return a.place().Compare(b.place()) })
	if n := len(x.Timeline) - maxTimeline; n > 0 {
		x.Omitted += n
		x.Timeline = x.Timeline[n:]
	}
}

// butUnread is said beside what is true only of the schemas that were read.
func (x *Explanation) butUnread() string {
	if len(x.Unread) == 0 {
		return ""
	}
	return "; " + countOf(len(x.Unread), "schema") + " could not be read"
}

// Bounds of an Explanation.
const (
	maxTimeline = 200
	maxAlso     = 10
)

// command returns a command line of words, quoted for a shell where necessary.
func command(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = printable.Word(w)
	}
	return strings.Join(quoted, " ")
}

// times is "once", "twice" or "3 times".
func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// countOf is "1 event" or "2 events"; at MaxCount it is "100000+ events".
func countOf(n int, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case n >= MaxCount:
		return fmt.Sprintf("%d+ %ss", MaxCount, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// sinceText is the time between two moments, to about two digits; "" if the first is unknown.
func sinceText(from, to time.Time) string {
	if from.IsZero() {
		return ""
	}
	d := to.Sub(from)
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return shortened(d.Round(time.Second))
	}
	return shortened(d.Round(time.Minute))
}

// shortened is a duration of a minute or more without what is zero: 12m0s is 12m, and 12m30s stays.
func shortened(d time.Duration) string {
	text := d.String()
	if cut, ok := strings.CutSuffix(text, "m0s"); ok {
		text = cut + "m"
	}
	if cut, ok := strings.CutSuffix(text, "h0m"); ok {
		text = cut + "h"
	}
	return text
}
