package stored

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/rocketflow/rocketflow"
)

// Digest returns 64 bits of a SHA-256 over an event's content: two events of the same source and id whose digests differ are
// a conflict. It is the same for an event as it was published, received and stored, however often it is sent. It excludes
// what may differ between two copies of one event: topic, sequence, previous, time and headers.
func Digest(e rocketflow.Event) int64 {
	h := sha256.New()
	field := func(s string) { // with its length, so that different lists of fields never give the same input
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(s)))
		h.Write(length[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{
		e.Source, e.ID.String(), e.OriginalID, e.Type, e.Subject, e.ContentType, e.DataSchema, e.TimeoutKey, e.TimeoutName,
	} {
		field(s)
	}
	field(string(e.Body))
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		field(name)
		field(e.Extensions[name])
	}
	return int64(binary.BigEndian.Uint64(h.Sum(nil))) //nolint:gosec // all 64 bits are wanted
}
