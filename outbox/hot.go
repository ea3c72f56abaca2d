package outbox

import (
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// hotStreams knows which streams have transactions waiting for each other. A half message travels while the rows are
// locked, so each of them would wait for the broker as often as there are transactions before it: they take the relay.
//
// A stream is hot when a second transaction has published to it while one is open, and when its transactions follow each
// other so closely, with others open in this process or made by another, that they have probably waited for one another:
// for a row of the application, mostly, which can't be seen.
type hotStreams struct {
	mu      sync.Mutex // held briefly
	open    int        // transactions of this process
	streams map[streamKey]*heat
	prune   int           // as many are looked through for what is over
	travel  time.Duration // of half messages, as it was of late
}

// streamKey is a stream of this source.
type streamKey struct{ topic, subject string }

type heat struct {
	open     int // transactions that have published to it
	ended    time.Time
	sequence int64     // the last that this process has taken
	until    time.Time // hot
}

const (
	// hotGap is the time between two transactions of a stream within which one has probably waited for the other.
	hotGap = 5 * time.Millisecond
	// hotFor is how long a stream remains hot.
	hotFor = 100 * time.Millisecond
	// hotStreamsLeast is the number of streams below which none is forgotten.
	hotStreamsLeast = 1024
)

func (h *hotStreams) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open++
}

// end is called once for each begin.
func (h *hotStreams) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
}

// enter notes that a transaction has published to a stream. It does so until leave.
func (h *hotStreams) enter(k streamKey) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[k]
	if s == nil {
		h.forget(now)
		s = &heat{}
		h.streams[k] = s
	}
	s.open++
	if s.open > 1 || h.open > 1 && now.Sub(s.ended) < hotGap {
		s.until = now.Add(hotFor)
	}
}

// leave ends enter, for a transaction that no longer holds the locks. sequence is its last of the stream; 0: none.
func (h *hotStreams) leave(k streamKey, sequence int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.streams[k]; s != nil {
		s.open--
		s.ended = time.Now()
		s.sequence = max(s.sequence, sequence)
	}
}

func (h *hotStreams) hot(keys []streamKey) bool {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(keys, func(k streamKey) bool {
		s := h.streams[k]
		return s != nil && (s.open > 1 || now.Before(s.until))
	})
}

// travelled notes how long a transaction waited for its half messages.
func (h *hotStreams) travelled(took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.travel += (took - h.travel) / 8
}

// contended tells, of an event that has its place, that the one before was recorded so shortly ago that their transactions
// have probably waited for one another, whatever process made it: its half message has travelled meanwhile. Sequences are
// times, in microseconds.
func (h *hotStreams) contended(e rocketflow.Event) bool {
	if e.Previous == 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if gap := time.Duration(e.Sequence-e.Previous) * time.Microsecond; gap >= hotGap+min(2*h.travel, hotFor) {
		return false
	}
	s := h.streams[streamKey{e.Topic, e.Subject}]
	if s == nil || h.open == 1 && s.sequence == e.Previous {
		return false // one caller alone, one event after the other
	}
	s.until = time.Now().Add(hotFor)
	return true
}

// forget makes room, now and then.
func (h *hotStreams) forget(now time.Time) {
	if h.streams == nil {
		h.streams, h.prune = map[streamKey]*heat{}, hotStreamsLeast
	}
	if len(h.streams) < h.prune {
		return
	}
	for k, s := range h.streams {
		if s.open == 0 && now.Sub(s.ended) > hotFor {
			delete(h.streams, k)
		}
	}
	h.prune = max(hotStreamsLeast, 2*len(h.streams))
}

// enter notes the stream of an event that the transaction has published.
func (s *transaction) enter(e rocketflow.Event) {
	k := streamKey{e.Topic, e.Subject}
	if !slices.Contains(s.streams, k) && len(s.streams) < maxHotStreams {
		s.streams = append(s.streams, k)
		s.outbox.hot.enter(k)
	}
}

// maxHotStreams bounds how many streams of a transaction are watched.
const maxHotStreams = 16

// hot tells that others wait for this transaction's streams.
func (s *transaction) hot() bool { return len(s.streams) > 0 && s.outbox.hot.hot(s.streams) }

// contended tells that this transaction has waited for others, after its rows are recorded.
func (s *transaction) contended() bool {
	var first []streamKey
	return slices.ContainsFunc(s.pending.events, func(e rocketflow.Event) bool {
		k := streamKey{e.Topic, e.Subject}
		if !e.Ordered() || slices.Contains(first, k) || len(first) == maxHotStreams {
			return false // its predecessor is of this transaction
		}
		first = append(first, k)
		return s.outbox.hot.contended(e)
	})
}

// leave tells that the transaction holds no lock any more. It may be called again.
func (s *transaction) leave() {
	if s.own == nil || s.left {
		return
	}
	s.left = true
	if s.handed != nil {
		s.outbox.handedOut.remove(s.handed)
	}
	for _, k := range s.streams {
		last := int64(0)
		for _, e := range s.pending.events {
			if e.Topic == k.topic && e.Subject == k.subject {
				last = e.Sequence
			}
		}
		s.outbox.hot.leave(k, last)
	}
	s.outbox.hot.end()
}
