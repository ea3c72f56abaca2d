package groupmember

import (
	"cmp"
	"slices"
	"sync"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// window holds the messages of one queue from their arrival until they are settled. Messages are settled in any order; the
// offset that is stored for the group is that of the oldest one that isn't settled.
type window struct {
	maxCount, maxBytes int

	mu      sync.Mutex
	entries []entry // in the order of their offsets
	taken   int     // how many of entries were taken; the rest waits for a handler
	bytes   int     // of the bodies in entries
	pulled  int64   // the offset to pull next
	changed chan struct{}
}

type entry struct {
	record  *remoting.Record
	settled bool
}

func newWindow(offset int64, maxCount, maxBytes int) *window {
	return &window{maxCount: maxCount, maxBytes: maxBytes, pulled: offset, changed: make(chan struct{})}
}

// signal wakes who waits for a change. The caller holds mu.
func (w *window) signal() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// next returns the offset to pull, and how many messages to ask for. With 0 the window is full; changed is closed when
// that may have ended.
func (w *window) next() (offset int64, count int, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	count = w.maxCount - len(w.entries)
	if w.bytes >= w.maxBytes && len(w.entries) > 0 {
		count = 0
	}
	return w.pulled, count, w.changed
}

// add takes what was pulled from an offset, and where the next pull begins. It ignores what the window has already, and all of
// it if the window was moved since the pull began.
func (w *window) add(from int64, records []*remoting.Record, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pulled != from {
		return
	}
	for _, r := range records {
		if r.QueueOffset < w.pulled {
			continue
		}
		w.entries = append(w.entries, entry{record: r})
		w.bytes += len(r.Body)
		w.pulled = r.QueueOffset + 1
	}
	w.pulled = max(w.pulled, next)
	w.signal()
}

// move continues at another offset, because the broker doesn't have what would come next. Back from where the window was,
// other messages have taken the offsets of those that are here: they are dropped, and settling one of them has no effect.
func (w *window) move(offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if offset < w.pulled {
		w.entries, w.taken, w.bytes = nil, 0, 0
	}
	w.pulled = offset
	w.signal()
}

// take returns the oldest message that no handler has got, or a channel that is closed when there may be one.
func (w *window) take() (*remoting.Record, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken == len(w.entries) {
		return nil, w.changed
	}
	w.taken++
	return w.entries[w.taken-1].record, nil
}

// settle notes that a message was handled.
func (w *window) settle(r *remoting.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, found := slices.BinarySearchFunc(w.entries, r.QueueOffset, func(e entry, offset int64) int { return cmp.Compare(e.record.QueueOffset, offset) })
	if !found || w.entries[i].record != r {
		return
	}
	w.entries[i].settled = true
	settled := 0
	for settled < w.taken && w.entries[settled].settled {
		w.bytes -= len(w.entries[settled].record.Body)
		settled++
	}
	if settled > 0 {
		w.entries = slices.Delete(w.entries, 0, settled)
		w.taken -= settled
		w.signal()
	}
}

// offset returns where the group would go on: the oldest message that isn't settled.
func (w *window) offset() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.entries) > 0 {
		return w.entries[0].record.QueueOffset
	}
	return w.pulled
}

// held returns how many messages the window has.
func (w *window) held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.entries)
}

// pulledTo returns the offset to pull next.
func (w *window) pulledTo() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pulled
}
