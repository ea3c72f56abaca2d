package handlers

import (
	"log/slog"
	"sync"
	"time"
)

// stall records why one part of a consumer, its lanes or findDue, can't use Postgres or the outbox at present.
type stall struct {
	consumer *consumer

	mu    sync.Mutex
	cause error
}

func (s *stall) begin(err error, wait time.Duration) {
	s.mu.Lock()
	first := s.cause == nil
	s.cause = err
	s.mu.Unlock()
	s.consumer.stalls.begin(s.consumer.name, err, first)
	s.consumer.cfg.Listener.Stalled(StalledInfo{s.consumer.name, err, wait})
}

// end is called with each success.
func (s *stall) end() {
	s.mu.Lock()
	ended := s.cause != nil
	s.cause = nil
	s.mu.Unlock()
	if ended {
		s.consumer.stalls.end()
	}
}

func (s *stall) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// stallLog logs the stalls of all consumers of a router together, as they mostly have one cause: when the first begins, once
// a minute while one lasts, and when the last is over.
type stallLog struct {
	log *slog.Logger

	mu      sync.Mutex
	stalled int
	since   time.Time
	logged  time.Time
	tries   int
}

const stallLogInterval = time.Minute

func (l *stallLog) begin(consumer string, err error, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first {
		if l.stalled++; l.stalled == 1 {
			l.since, l.logged, l.tries = time.Now(), time.Time{}, 0
		}
	}
	l.tries++
	if time.Since(l.logged) < stallLogInterval {
		return
	}
	l.logged = time.Now()
	l.log.Warn("handlers can't use Postgres, or the outbox accepts no events; no event is handled, and it is retried until it succeeds: check Postgres, and the broker if the outbox is full", keyConsumer, consumer, keyError, logText(err), "tries", l.tries)
}

func (l *stallLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stalled--; l.stalled == 0 {
		l.log.Info("handlers run again: Postgres and the outbox can be used", "stalled_for", time.Since(l.since), "tries", l.tries)
	}
}
