package broker

import "time"

// Begin is where a consumer group that is new to a topic begins to read it. The zero value is BeginOldest. It matters once: a group that
// has read from a topic continues where it was, whatever Begin says later. A group of another name is a new group.
type Begin struct {
	newest bool
	at     time.Time
}

// BeginOldest begins at the oldest message that the broker still has.
func BeginOldest() Begin { return Begin{} }

// BeginNewest begins after the messages that are stored when the group's first consumer starts.
func BeginNewest() Begin { return Begin{newest: true} }

// BeginAt begins at the first message that was stored at t or later, by the broker's clock. An instant in the future is BeginNewest, one
// before the oldest message is BeginOldest.
func BeginAt(t time.Time) Begin { return Begin{at: t} }

// Oldest reports whether b is BeginOldest.
func (b Begin) Oldest() bool { return !b.newest && b.at.IsZero() }

// Newest reports whether b is BeginNewest.
func (b Begin) Newest() bool { return b.newest }

// Time returns the instant of BeginAt. ok is false for BeginOldest and BeginNewest.
func (b Begin) Time() (t time.Time, ok bool) { return b.at, !b.newest && !b.at.IsZero() }

// String returns "oldest", "newest", or the instant in RFC 3339.
func (b Begin) String() string {
	switch {
	case b.newest:
		return "newest"
	case b.at.IsZero():
		return "oldest"
	}
	return b.at.UTC().Format(time.RFC3339Nano)
}
