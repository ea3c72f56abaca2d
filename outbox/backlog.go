package outbox

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// backlog is this process's estimate of the number of owed events: the last count of the sweep (of whichever process
// sweeps), plus the events that this process has committed since without an acknowledgement.
type backlog struct {
	limit      int64
	topicLimit int64 // of the rejected events of one topic

	mu       sync.Mutex
	progress sweepProgress
	owed     int64
	oldest   time.Duration // age when read
	read     time.Time     // by the configured clock
	own      int64         // events that this process committed, less those that it acknowledged
	base     int64         // own at the reading before the last: events committed since may not be counted yet
	last     int64         // own at the last reading
	full     bool          // Publish is refused

	rejected map[string]*rejectedTopic
}

// rejectedTopic is this process's estimate of the rejected events of a topic; own, base and last are as in backlog.
type rejectedTopic struct {
	counted         int64
	own, base, last int64
	since           time.Time
	reason          string
}

func (r *rejectedTopic) estimate() int64 { return max(r.counted, r.own-r.base) }

func (o *Outbox) readBacklog(ctx context.Context) error {
	state, err := o.readSweepState(ctx)
	if err != nil {
		return err
	}
	o.updateBacklog(state)
	return nil
}

func (o *Outbox) updateBacklog(state sweepState) {
	rejected := o.backlog.update(o.config.Clock.Now(), state)
	for _, topic := range o.loggedReasons.forget(rejected) {
		o.log.Info("the broker rejects no event of the topic any more", keyTopic, topic)
	}
}

// update takes over the sweep's count, and returns a copy of rejected.
func (b *backlog) update(now time.Time, state sweepState) map[string]*rejectedTopic {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress, b.owed, b.oldest, b.read = state.progress, state.owed, state.oldest, now
	b.base, b.last = b.last, b.own
	for _, r := range b.rejected {
		r.counted = 0
		r.base, r.last = r.last, r.own
	}
	for _, c := range state.rejected {
		r := b.topic(c.Topic)
		r.counted, r.since, r.reason = c.Events, time.Unix(c.Since, 0), c.Reason
	}
	maps.DeleteFunc(b.rejected, func(_ string, r *rejectedTopic) bool { return r.estimate() == 0 })
	b.updateFull()
	return maps.Clone(b.rejected)
}

// topic returns the entry of a topic, which it makes if there is none; called with mu held.
func (b *backlog) topic(name string) *rejectedTopic {
	r := b.rejected[name]
	if r == nil {
		if b.rejected == nil {
			b.rejected = map[string]*rejectedTopic{}
		}
		r = &rejectedTopic{since: b.read}
		b.rejected[name] = r
	}
	return r
}

// reject counts events whose rejection this process has recorded. The relay's events are among those that this process has
// committed and are taken from them; the sweep's are taken from the count that was read.
func (b *backlog) reject(all []rejectedEvent, relayed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range all {
		r := b.topic(e.topic)
		r.own++
		r.reason = e.reason
	}
	if relayed {
		b.own -= int64(len(all))
	} else {
		b.owed = max(0, b.owed-int64(len(all)))
	}
	b.updateFull()
}

// listener returns a listener that counts the events that this process commits and acknowledges.
func (b *backlog) listener() *Listener {
	return &Listener{
		Committed: func(events []rocketflow.Event) { b.add(len(events)) },
		Acked: func(i AckedInfo) {
			if i.Err == nil {
				b.add(-len(i.IDs))
			}
		},
	}
}

func (b *backlog) unread() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read.IsZero()
}

func (b *backlog) add(events int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own += int64(events)
	b.updateFull()
}

// updateFull decides whether Publish is refused; called with mu held. A full backlog stays full until a fifth of it is
// drained, so that callers are not refused and accepted in turn.
func (b *backlog) updateFull() {
	switch owed := b.estimate(); {
	case b.limit < 0:
	case owed >= b.limit:
		b.full = true
	case owed <= b.limit*4/5:
		b.full = false
	}
}

// countLimit is the number of owed events beyond which none are counted.
func (b *backlog) countLimit() int64 {
	if b.limit < 0 {
		return 200_000
	}
	return 2 * b.limit
}

func (b *backlog) estimate() int64 { return b.owed + max(0, b.own-b.base) }

// age returns the age of the oldest owed event; called with mu held.
func (b *backlog) age(now time.Time) time.Duration {
	if b.owed == 0 {
		return 0
	}
	return b.oldest + max(0, now.Sub(b.read))
}

// admit returns a *rocketflow.BackpressureError if too much is owed.
func (o *Outbox) admit() error {
	b := &o.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.full {
		return nil
	}
	return &rocketflow.BackpressureError{Backlog: b.estimate(), Oldest: b.age(o.config.Clock.Now())}
}

// admitTopic returns a *rocketflow.BackpressureError if too many events of the topic are rejected by the broker.
func (o *Outbox) admitTopic(topic string) error {
	b := &o.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.rejected[topic]
	if r == nil || b.topicLimit < 0 || r.estimate() < b.topicLimit {
		return nil
	}
	return &rocketflow.BackpressureError{
		Backlog: r.estimate(), Oldest: max(0, o.config.Clock.Now().Sub(r.since)), Topic: topic, Reason: r.reason,
	}
}

// RejectedTopic counts the owed events of a topic that the broker rejects.
type RejectedTopic struct {
	Topic  string    // the topic's name
	Events int64     // the number of rejected events
	Since  time.Time // when the broker first rejected the first of them
	Reason string    // the broker's error for one of them
}

// Rejected returns the topics whose events the broker rejects, as this process knows them: its own rejections and what the
// sweep has counted some seconds ago. It makes no request.
func (o *Outbox) Rejected() []RejectedTopic {
	b := &o.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []RejectedTopic
	for topic, r := range b.rejected {
		all = append(all, RejectedTopic{Topic: topic, Events: r.estimate(), Since: r.since, Reason: r.reason})
	}
	slices.SortFunc(all, func(a, b RejectedTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return all
}

// Backlog returns how many events are owed to the broker and the age of the oldest one. Events that the broker rejects are
// included; Rejected lists them. It is cheap for any backlog: up to SweepPage events are counted exactly. Beyond that it
// returns an estimate from the sweep's last count, which is some seconds old, and at most twice MaxBacklog.
func (o *Outbox) Backlog(ctx context.Context) (events int64, oldest time.Duration, err error) {
	b := &o.backlog
	if b.unread() {
		if err := o.readBacklog(ctx); err != nil {
			return 0, 0, err
		}
	}
	b.mu.Lock()
	now := o.config.Clock.Now()
	events, oldest, progress := b.estimate(), b.age(now), b.progress
	var rejected int64
	var longest time.Duration // rejected
	for _, r := range b.rejected {
		rejected += r.estimate()
		longest = max(longest, now.Sub(r.since))
	}
	b.mu.Unlock()
	page := int64(o.config.SweepPage)
	if events > page {
		return events + rejected, max(oldest, longest), nil
	}
	var (
		seconds               float64
		owed, alreadyRejected int64
	)
	if err := o.db().QueryRow(ctx, o.queries.Get("OldestOwed"), progress.seen, progress.recheck, page).Scan(&seconds, &owed, &alreadyRejected); err != nil {
		return 0, 0, fmt.Errorf("read backlog: %w", err)
	}
	oldest = time.Duration(seconds * float64(time.Second))
	if alreadyRejected >= page {
		alreadyRejected, oldest = max(alreadyRejected, rejected), max(oldest, longest)
	}
	return owed + alreadyRejected, oldest, nil
}
