package console

import (
	"context"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

const (
	snapshotTimeout = 8 * time.Second  // of one service
	snapshotShare   = 4                // a snapshot takes no more than a fifth of the time
	samplePause     = 10 * time.Second // between two samples of the history
	maxSamples      = 180              // half an hour of them
	lagPause        = 5 * time.Second  // between two questions to the broker
	lagTimeout      = 5 * time.Second
)

// snapshot is what all viewers of the overview see.
type snapshot struct {
	at       time.Time
	services []serviceState // in the order of Config.Services
}

// serviceState is the newest that is known of a service.
type serviceState struct {
	name     string
	overview *operate.Overview // nil: it was never read
	readAt   time.Time         // when overview was read
	problem  string            // why it couldn't be read again; empty: it was
	lags     map[string]lag    // by consumer; nil: the broker wasn't asked
	history  []sample          // the oldest first
}

// lag is what a consumer has not read of its topics.
type lag struct {
	messages int64
	oldest   time.Time // when the oldest of them was stored
	problem  string    // why it isn't known
}

// sample is one moment of a service for the curves.
type sample struct {
	at                 time.Time
	owed, parked, dead int64
}

// history are the samples of each service. Only the loop uses it.
type history struct {
	samples map[string][]sample
	next    time.Time
}

// lags are the answers of the broker, by service and consumer.
type lags map[string]map[string]lag

// refresh reads a snapshot and returns the pause until the next.
func (c *Console) refresh(ctx context.Context) time.Duration {
	before := c.last.Load()
	next := &snapshot{at: time.Now(), services: make([]serviceState, len(c.config.Services))}
	var reading sync.WaitGroup
	for i, s := range c.config.Services {
		reading.Go(func() {
			state := &next.services[i]
			state.name = s.Name
			ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
			defer cancel()
			overview, err := s.Operator.Overview(ctx)
			if err == nil {
				state.overview, state.readAt = overview, time.Now()
				return
			}
			state.problem = err.Error()
			if before != nil {
				state.overview, state.readAt = before.services[i].overview, before.services[i].readAt
			}
		})
	}
	reading.Wait()
	if ctx.Err() != nil {
		return restingPause
	}
	if known := c.lags.Load(); known != nil {
		for i := range next.services {
			next.services[i].lags = (*known)[next.services[i].name]
		}
	}
	c.sample(next)
	c.last.Store(next)
	if time.Since(time.Unix(0, c.seen.Load())) < watchedFor {
		return max(watchedPause, snapshotShare*time.Since(next.at))
	}
	return restingPause
}

// look returns the newest snapshot, nil before the first, and keeps the loop awake.
func (c *Console) look() *snapshot {
	resting := time.Since(time.Unix(0, c.seen.Swap(time.Now().UnixNano()))) >= watchedFor
	if resting {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return c.last.Load()
}

// sample adds to the curves.
func (c *Console) sample(s *snapshot) {
	if c.store.samples == nil {
		c.store.samples = map[string][]sample{}
	}
	add := !s.at.Before(c.store.next)
	if add {
		c.store.next = s.at.Add(samplePause)
	}
	for i := range s.services {
		v := &s.services[i]
		list := c.store.samples[v.name]
		if v.overview != nil && v.problem == "" {
			now := sample{at: s.at, owed: owed(v.overview).Events}
			now.parked, now.dead = parked(v.overview)
			if add {
				list = append(list, now)
				if n := len(list) - maxSamples; n > 0 {
					list = append([]sample{}, list[n:]...) // snapshots share the old one
				}
				c.store.samples[v.name] = list
			} else {
				list = append(list[:len(list):len(list)], now)
			}
		}
		v.history = list[:len(list):len(list)]
	}
}

// askLags asks the broker what the consumers have not read, while somebody looks.
func (c *Console) askLags(ctx context.Context) {
	s := c.last.Load()
	if s == nil || time.Since(time.Unix(0, c.seen.Load())) >= watchedFor {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	known := lags{}
	for _, v := range s.services {
		if v.overview == nil {
			continue
		}
		known[v.name] = map[string]lag{}
		for _, consumer := range v.overview.Consumers {
			known[v.name][consumer.Name] = c.lagOf(ctx, consumer)
		}
	}
	c.lags.Store(&known)
}

func (c *Console) lagOf(ctx context.Context, consumer operate.ConsumerReport) (l lag) {
	if consumer.Group == "" {
		return lag{problem: "its group is not recorded: start the new version"}
	}
	for _, topic := range consumer.Topics {
		queues, err := c.config.Broker.QueuePositions(ctx, consumer.Group, topic)
		if err != nil {
			return lag{problem: err.Error()}
		}
		for _, q := range queues {
			l.messages += q.Lag()
			if !q.Unread.IsZero() && (l.oldest.IsZero() || q.Unread.Before(l.oldest)) {
				l.oldest = q.Unread
			}
		}
	}
	return l
}

// owed sums the owed events of all topics.
func owed(v *operate.Overview) (sum operate.OwedCount) {
	for _, o := range v.Owed {
		sum.Events += o.Events
		if sum.Oldest.IsZero() || o.Oldest.Before(sum.Oldest) {
			sum.Oldest = o.Oldest
		}
	}
	return sum
}

// parked counts the parked events and the dead letters.
func parked(v *operate.Overview) (waiting, dead int64) {
	for _, p := range v.Parked {
		if p.Reason == operate.StateDead {
			dead += p.Events
		} else {
			waiting += p.Events
		}
	}
	return waiting, dead
}
