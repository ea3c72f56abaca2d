package clock

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// Stamp gives id, a UUIDv7 that was drawn just now, the time of c. Partitions are days of ids, so who makes and drops
// them by a clock needs ids by the same. The machine's clock is in id already.
func Stamp(c rocketflow.Clock, id uuid.UUID) uuid.UUID {
	if _, ok := c.(System); ok {
		return id
	}
	return StampAt(c.Now(), id)
}

// StampAt gives id, a UUIDv7, the time at.
func StampAt(at time.Time, id uuid.UUID) uuid.UUID {
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
