package frame

import (
	"sync"
	"time"
)

// Stopwatch measures the time from the commit of an event to the call of its handler, by the key of the event or message. All
// methods are safe for concurrent use.
type Stopwatch struct {
	mu        sync.Mutex
	committed map[string]time.Time // by key, of events that have not arrived
	arrived   map[string]bool
	took      []time.Duration
	doubled   int
}

// NewStopwatch returns an empty Stopwatch.
func NewStopwatch() *Stopwatch {
	return &Stopwatch{committed: map[string]time.Time{}, arrived: map[string]bool{}}
}

// Commit records that the database has just confirmed the commit of the key's transaction.
func (s *Stopwatch) Commit(key string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arrived[key] { // it arrived before the committing goroutine called Commit
		s.took = append(s.took, 0)
		return
	}
	s.committed[key] = now
}

// Arrive records that the handler was called with the key's event.
func (s *Stopwatch) Arrive(key string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arrived[key] {
		s.doubled++
		return
	}
	s.arrived[key] = true
	if at, ok := s.committed[key]; ok {
		s.took = append(s.took, now.Sub(at))
		delete(s.committed, key)
	}
}

// Counts returns the number of events that have arrived, and of committed ones that have not.
func (s *Stopwatch) Counts() (arrived, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took), len(s.committed)
}

// take returns the latencies of the events that have arrived since the last call.
func (s *Stopwatch) take() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := s.took
	s.took = nil
	return took
}

// reset clears the arrived events.
func (s *Stopwatch) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took, s.doubled = nil, 0
	clear(s.arrived)
}
