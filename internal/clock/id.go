package clock

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// Stamp returns id, a UUIDv7 that was drawn just now, with the time of c. A partition holds the ids of one day, and the same
// clock must give the days of partitions and of ids. The ids that are drawn carry the time of the machine.
func Stamp(c rocketflow.Clock, id uuid.UUID) uuid.UUID {
	if _, ok := c.(System); ok {
		return id
	}
	return StampAt(c.Now(), id)
}

// StampAt returns id, a UUIDv7, with the time at.
func StampAt(at time.Time, id uuid.UUID) uuid.UUID {
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// TimeOf returns the time in a UUIDv7.
func TimeOf(id uuid.UUID) time.Time { return time.Unix(id.Time().UnixTime()) }
