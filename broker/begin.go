package broker

import "time"

// Begin says where a group that is new to a topic begins to read it. The zero value is BeginOldest. It is asked once: a
// group that has read from a topic goes on where it was, whatever Begin says later, and a group of another name is new.
type Begin struct {
	newest bool
	at     time.Time
}

// BeginOldest begins with the oldest message that the broker still has.
func BeginOldest() Begin { return Begin{} }

// BeginNewest begins behind what is stored when the group's first consumer starts.
func BeginNewest() Begin { return Begin{newest: true} }

// BeginAt begins with the first message that was stored at t or later, by the broker's clock. An instant that hasn't come
// is BeginNewest, one before the oldest message is BeginOldest.
func BeginAt(t time.Time) Begin { return Begin{at: t} }

// Oldest tells whether b is BeginOldest.
func (b Begin) Oldest() bool { return !b.newest && b.at.IsZero() }

// Newest tells whether b is BeginNewest.
func (b Begin) Newest() bool { return b.newest }

// Time returns the instant of BeginAt.
func (b Begin) Time() (t time.Time, ok bool) { return b.at, !b.newest && !b.at.IsZero() }

func (b Begin) String() string {
	switch {
	case b.newest:
		return "newest"
	case b.at.IsZero():
		return "oldest"
	}
	return b.at.UTC().Format(time.RFC3339Nano)
}
