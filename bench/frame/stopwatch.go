package frame

import (
	"sync"
	"time"
)

// Stopwatch measures from the commit to the call of the handler, by the event's or message's key. All methods are safe
// for concurrent use.
type Stopwatch struct {
	mu         sync.Mutex
	committed  map[string]time.Time // what has not arrived
	arrived    map[string]bool
	took       []time.Duration
	duplicates int
}

// NewStopwatch returns one that nothing has happened on.
func NewStopwatch() *Stopwatch {
	return &Stopwatch{committed: map[string]time.Time{}, arrived: map[string]bool{}}
}

// Commit says that the database has just confirmed the commit of what the key belongs to.
func (s *Stopwatch) Commit(key string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arrived[key] { // before the committing goroutine looked at its watch
		s.took = append(s.took, 0)
		return
	}
	s.committed[key] = now
}

// Arrive says that the handler was called with it.
func (s *Stopwatch) Arrive(key string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arrived[key] {
		s.duplicates++
		return
	}
	s.arrived[key] = true
	if at, ok := s.committed[key]; ok {
		s.took = append(s.took, now.Sub(at))
		delete(s.committed, key)
	}
}

// Counts returns how much arrived, and how much is committed and has not.
func (s *Stopwatch) Counts() (arrived, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took), len(s.committed)
}

// take returns what has arrived since the last call, and forgets it.
func (s *Stopwatch) take() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := s.took
	s.took = nil
	return took
}

// reset forgets what arrived.
func (s *Stopwatch) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took, s.duplicates = nil, 0
	clear(s.arrived)
}
