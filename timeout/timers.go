package timeout

import (
	"errors"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// Timers is what delivers the events of timeouts when they are due.
type Timers string

const (
	// BrokerTimers hands timeouts over to the timers of the broker. Those for which the broker has no timer fire from Postgres.
	BrokerTimers Timers = "broker"
	// PostgresTimers lets all timeouts fire from Postgres: nothing is handed over.
	PostgresTimers Timers = "postgres"
)

// horizon returns how long before its due time a timeout is handed over to the broker: 0 if timeouts fire from Postgres.
func (s *Scheduler) horizon() time.Duration {
	if s.cfg.Timers == PostgresTimers {
		return 0
	}
	return max(0, min(s.cfg.Horizon, s.cfg.Broker.Horizon()))
}

// horizonOf returns the horizon for the timeouts of a topic: 0 if the broker has recently rejected timers for it.
func (s *Scheduler) horizonOf(topic string) time.Duration {
	if s.rejections.has(s.cfg.Clock.Now(), topic) {
		return 0
	}
	return s.horizon()
}

// rememberRejection remembers that the broker rejected a timer, so that the timeouts of the topic aren't handed over for a
// while, and logs it. What concerns one message only isn't remembered.
func (s *Scheduler) rememberRejection(topic string, err error) {
	var property *broker.ReservedPropertyError
	if errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrBeyondHorizon) || errors.As(err, &property) {
		return
	}
	if errors.Is(err, broker.ErrNoTimers) {
		topic = anyTopic
	}
	if s.rejections.add(s.cfg.Clock.Now(), topic) {
		s.cfg.Logger.Warn("the broker rejected a timer; timeouts fire from Postgres, those of this topic or, if it is empty, of all topics; later timers are tried again",
			keyTopic, topic, keyError, err, keyRetryAfter, rejectionTime)
	}
}

const (
	// rejectionTime is how long no timers are requested for a topic after the broker rejected one.
	rejectionTime = time.Minute
	// maxRejections is the number of topics for which rejections are remembered.
	maxRejections = 1024
)

// rejections are the topics for which the broker rejected a timer. A topic may have a type that excludes timers, or the broker
// may have none.
type rejections struct {
	mu    sync.Mutex
	until map[string]time.Time // by topic; anyTopic: of all topics
}

// anyTopic is the key of a rejection that is not about one topic. No topic has an empty name.
const anyTopic = ""

// add remembers a rejection, and returns false if it was known already.
func (r *rejections) add(now time.Time, topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.until[topic]) {
		return false
	}
	for t, until := range r.until {
		if !now.Before(until) || len(r.until) >= maxRejections {
			delete(r.until, t)
		}
	}
	if r.until == nil {
		r.until = map[string]time.Time{}
	}
	r.until[topic] = now.Add(rejectionTime)
	return true
}

// has reports whether timers for a topic were rejected recently.
func (r *rejections) has(now time.Time, topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.until[topic]) || now.Before(r.until[anyTopic])
}

// hasAny reports whether timers for any topic were rejected recently.
func (r *rejections) hasAny(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, until := range r.until {
		if now.Before(until) {
			return true
		}
	}
	return false
}
