package console

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/operate"
)

const (
	overviewTimeout = 8 * time.Second  // of one service
	overviewShare   = 4                // reading a service takes no more than a fifth of the time
	samplePause     = 10 * time.Second // between two samples of the history
	maxSamples      = 180              // half an hour of them
	lagPause        = 5 * time.Second  // between two questions to the broker
	lagTimeout      = 5 * time.Second
	lagsFor         = 30 * time.Second // after which an answer of the broker is too old to be shown
)

// watch reads the overview of one service again and again: in a loop of its own, so that a database that doesn't answer delays no other
// service.
type watch struct {
	service Service
	wake    chan struct{}                // has a value if somebody looks at a resting console
	newest  atomic.Pointer[serviceState] // nil: no reading has ended

	// Of the loop.
	samples    []sample
	nextSample time.Time
}

// serviceState is the newest that is known of a service.
type serviceState struct {
	name     string
	overview *operate.Overview // nil: it was never read
	readAt   time.Time         // when overview was read
	problem  string            // why it couldn't be read again; empty: it was
	lags     map[string]lag    // by consumer; nil: the broker wasn't asked lately
	history  []sample          // the oldest first
}

// lag is what a consumer has not read of its topics.
type lag struct {
	messages int64
	oldest   time.Time  // when the oldest of them was stored
	queues   int        // of its topics
	behind   []queueLag // the queues that it has not read to their end, the farthest behind first
	problem  string     // why it isn't known
}

// queueLag is what a consumer has not read of a queue.
type queueLag struct {
	Topic string
	broker.QueuePosition
}

// sample is one moment of a service for the curves.
type sample struct {
	at                 time.Time
	owed, parked, dead int64
}

// lags are the answers of the broker.
type lags struct {
	at        time.Time
	byService map[string]map[string]lag // by service and consumer
}

// refresh reads the overview and returns the pause until the next reading.
func (c *Console) refresh(ctx context.Context, w *watch) time.Duration {
	began := time.Now()
	next := serviceState{name: w.service.Name}
	reading, cancel := context.WithTimeout(ctx, overviewTimeout)
	defer cancel()
	overview, err := w.service.Operator.Overview(reading)
	if ctx.Err() != nil {
		return restingPause
	}
	if err == nil {
		next.overview, next.readAt = overview, time.Now()
	} else {
		next.problem = err.Error()
		if before := w.newest.Load(); before != nil {
			next.overview, next.readAt = before.overview, before.readAt
		}
	}
	next.history = w.sample(&next)
	w.newest.Store(&next)
	if c.watched() {
		return max(watchedPause, overviewShare*time.Since(began))
	}
	return restingPause
}

// watched reports whether somebody has looked lately.
func (c *Console) watched() bool { return time.Since(time.Unix(0, c.seen.Load())) < watchedFor }

// look returns the newest state of each service in the order of Config.Services, nil until all were read once, and keeps the loops awake.
func (c *Console) look() []serviceState {
	resting := !c.watched()
	c.seen.Store(time.Now().UnixNano())
	known := c.lags.Load()
	var list []serviceState
	for _, w := range c.watches {
		if resting {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
		newest := w.newest.Load()
		if newest == nil {
			continue
		}
		state := *newest
		if known != nil && time.Since(known.at) < lagsFor {
			state.lags = known.byService[state.name]
		}
		list = append(list, state)
	}
	if len(list) < len(c.watches) {
		return nil
	}
	return list
}

// sample returns the curves of a state. A state that was read becomes a part of them every samplePause, and else their end.
func (w *watch) sample(s *serviceState) []sample {
	list := w.samples[:len(w.samples):len(w.samples)] // states share it
	if s.problem != "" {
		return list
	}
	waiting, dead := parked(s.overview)
	total, _ := owed(s.overview)
	now := sample{at: s.readAt, owed: total.N, parked: waiting.N, dead: dead.N}
	list = append(list, now)
	if !now.at.Before(w.nextSample) {
		w.nextSample = now.at.Add(samplePause)
		w.samples = list[max(len(list)-maxSamples, 0):]
	}
	return list
}

// askLags asks the broker what the consumers have not read, while somebody looks.
func (c *Console) askLags(ctx context.Context) {
	if !c.watched() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	known := lags{byService: map[string]map[string]lag{}}
	for _, w := range c.watches {
		state := w.newest.Load()
		if state == nil || state.overview == nil {
			continue
		}
		list := map[string]lag{}
		for _, consumer := range state.overview.Consumers {
			list[consumer.Name] = c.lagOf(ctx, consumer)
		}
		known.byService[state.name] = list
	}
	known.at = time.Now()
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
		l.queues += len(queues)
		for _, q := range queues {
			if l.messages += q.Lag(); q.Lag() > 0 {
				l.behind = append(l.behind, queueLag{topic, q})
			}
			if !q.Unread.IsZero() && (l.oldest.IsZero() || q.Unread.Before(l.oldest)) {
				l.oldest = q.Unread
			}
		}
	}
	slices.SortStableFunc(l.behind, func(a, b queueLag) int { return cmp.Compare(b.Lag(), a.Lag()) })
	return l
}

// owed sums the owed events of all topics, and returns when the oldest was recorded.
func owed(v *operate.Overview) (sum tally, oldest time.Time) {
	for _, o := range v.Owed {
		sum.N += o.Events
		if oldest.IsZero() || o.Oldest.Before(oldest) {
			oldest = o.Oldest
		}
	}
	sum.More = sum.N >= operate.MaxOverviewCount // of all together
	return sum, oldest
}

// parked counts the parked events and the dead letters.
func parked(v *operate.Overview) (waiting, dead tally) {
	for _, c := range v.Consumers {
		waiting.add(c.Parked)
		dead.add(c.Dead)
	}
	return waiting, dead
}
