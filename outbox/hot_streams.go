package outbox

import (
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// hotStreams finds the streams whose transactions wait for each other's row locks. A half message is stored while the rows
// are locked, so each of these transactions would wait for the broker as often as there are transactions before it:
// therefore they take the relay path.
//
// A stream is hot when a second transaction publishes to it while one is open. It is also hot when its transactions follow
// each other so closely, with others open in this process or in another, that they have probably waited for each other;
// mostly for a row of the application, which can't be observed here.
type hotStreams struct {
	mu          sync.Mutex // held briefly
	open        int        // transactions of this process
	streams     map[streamKey]*activity
	pruneAt     int           // so many streams have the idle ones dropped
	halfLatency time.Duration // moving average of how long a transaction waits for its half messages
}

// streamKey is a stream of this source.
type streamKey struct{ topic, subject string }

// activity describes the transactions that publish to a stream.
type activity struct {
	open     int       // transactions that have published to it
	ended    time.Time // when the last of them ended
	sequence int64     // the last that this process has taken
	hotUntil time.Time
}

const (
	// hotGap is the time between two transactions of a stream within which one has probably waited for the other.
	hotGap = 5 * time.Millisecond
	// hotFor is how long a stream remains hot.
	hotFor = 100 * time.Millisecond
	// pruneAtLeast is the number of remembered streams below which none is dropped.
	pruneAtLeast = 1024
)

// begin counts an open transaction.
func (h *hotStreams) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open++
}

// end must be called once for each begin.
func (h *hotStreams) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
}

// enter notes that an open transaction has published to a stream. leave must follow.
func (h *hotStreams) enter(k streamKey) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[k]
	if s == nil {
		h.dropIdle(now)
		s = &activity{}
		h.streams[k] = s
	}
	s.open++
	if s.open > 1 || h.open > 1 && now.Sub(s.ended) < hotGap {
		s.hotUntil = now.Add(hotFor)
	}
}

// leave notes that the transaction of an enter no longer holds the stream's lock. sequence is the last one that it took in
// the stream; 0: none.
func (h *hotStreams) leave(k streamKey, sequence int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.streams[k]; s != nil {
		s.open--
		s.ended = time.Now()
		s.sequence = max(s.sequence, sequence)
	}
}

// anyHot reports whether one of the streams is hot.
func (h *hotStreams) anyHot(keys []streamKey) bool {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(keys, func(k streamKey) bool {
		s := h.streams[k]
		return s != nil && (s.open > 1 || now.Before(s.hotUntil))
	})
}

// prepared notes how long a transaction waited for its half messages.
func (h *hotStreams) prepared(took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.halfLatency += (took - h.halfLatency) / 8
}

// contended reports whether a recorded event follows its predecessor, of this or another process, so closely that their
// transactions have probably waited for each other. Sequences are times, in microseconds.
func (h *hotStreams) contended(e rocketflow.Event) bool {
	if e.Previous == 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if gap := time.Duration(e.Sequence-e.Previous) * time.Microsecond; gap >= hotGap+min(2*h.halfLatency, hotFor) {
		return false
	}
	s := h.streams[streamKey{e.Topic, e.Subject}]
	if s == nil || h.open == 1 && s.sequence == e.Previous {
		return false // one caller alone, one event after the other
	}
	s.hotUntil = time.Now().Add(hotFor)
	return true
}

// dropIdle forgets idle streams once there are pruneAt streams or more.
func (h *hotStreams) dropIdle(now time.Time) {
	if h.streams == nil {
		h.streams, h.pruneAt = map[streamKey]*activity{}, pruneAtLeast
	}
	if len(h.streams) < h.pruneAt {
		return
	}
	for k, s := range h.streams {
		if s.open == 0 && now.Sub(s.ended) > hotFor {
			delete(h.streams, k)
		}
	}
	h.pruneAt = max(pruneAtLeast, 2*len(h.streams))
}

// streamWatch is one transaction's part in hotStreams: the streams that it has published to, whose rows it holds locked. The
// zero value, which joined transactions have, watches nothing.
type streamWatch struct {
	hot     *hotStreams // nil before begin and after leave
	streams []streamKey
}

// maxWatched bounds how many streams of a transaction are watched.
const maxWatched = 16

// begin counts the transaction as open until leave.
func (w *streamWatch) begin(h *hotStreams) {
	w.hot = h
	h.begin()
}

// enter notes the stream of an event that the transaction has published.
func (w *streamWatch) enter(e rocketflow.Event) {
	k := streamKey{e.Topic, e.Subject}
	if w.hot != nil && !slices.Contains(w.streams, k) && len(w.streams) < maxWatched {
		w.streams = append(w.streams, k)
		w.hot.enter(k)
	}
}

// anyHot reports whether other transactions wait for a stream of this one.
func (w *streamWatch) anyHot() bool {
	return w.hot != nil && len(w.streams) > 0 && w.hot.anyHot(w.streams)
}

// contended reports whether this transaction has waited for others, by its events after their rows are recorded.
func (w *streamWatch) contended(events []rocketflow.Event) bool {
	if w.hot == nil {
		return false
	}
	var first []streamKey
	return slices.ContainsFunc(events, func(e rocketflow.Event) bool {
		k := streamKey{e.Topic, e.Subject}
		if !e.Ordered() || slices.Contains(first, k) || len(first) == maxWatched {
			return false // its predecessor is of this transaction
		}
		first = append(first, k)
		return w.hot.contended(e)
	})
}

// prepared notes how long the transaction waited for its half messages.
func (w *streamWatch) prepared(took time.Duration) {
	if w.hot != nil {
		w.hot.prepared(took)
	}
}

// leave notes that the transaction with these events holds no lock any more. It may be called again.
func (w *streamWatch) leave(events []rocketflow.Event) {
	h := w.hot
	if h == nil {
		return
	}
	w.hot = nil
	for _, k := range w.streams {
		last := int64(0)
		for _, e := range events {
			if e.Topic == k.topic && e.Subject == k.subject {
				last = e.Sequence
			}
		}
		h.leave(k, last)
	}
	h.end()
}
