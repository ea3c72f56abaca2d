package handlers

import (
	"sync"
	"time"
)

// stall is why a consumer can't work with Postgres or the outbox at present. It is logged when it begins, once a minute
// while it lasts, and when it is over.
type stall struct {
	consumer *consumer

	mu     sync.Mutex
	cause  error
	since  time.Time
	logged time.Time
	tries  int
}

const stallLogInterval = time.Minute

func (s *stall) begin(err error, wait time.Duration) {
	c := s.consumer
	s.mu.Lock()
	if s.cause == nil {
		s.since, s.tries, s.logged = time.Now(), 0, time.Time{}
	}
	s.cause = err
	s.tries++
	tries, say := s.tries, time.Since(s.logged) >= stallLogInterval
	if say {
		s.logged = time.Now()
	}
	s.mu.Unlock()
	if say {
		c.cfg.Logger.Warn("consumer can't use Postgres, or may not publish; it tries again until it can", keyConsumer, c.name, keyError, logText(err), "tries", tries)
	}
	c.cfg.Listener.Stalled(StalledInfo{c.name, err, wait})
}

// end is called with each success.
func (s *stall) end() {
	s.mu.Lock()
	cause, since, tries := s.cause, s.since, s.tries
	s.cause = nil
	s.mu.Unlock()
	if cause != nil {
		s.consumer.cfg.Logger.Info("consumer works with Postgres again", keyConsumer, s.consumer.name, "stalled_for", time.Since(since), "tries", tries)
	}
}

func (s *stall) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}
