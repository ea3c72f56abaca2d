package handlers

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// item is a delivery on its way through a lane.
type item struct {
	event      rocketflow.Event
	unreadable error      // why the message is no event
	until      time.Time  // so long it waits in memory for its predecessor
	done       chan error // buffered; nil settles the message
	waits      bool       // as a gap, and that was said

	// set by each attempt
	stream *stream
	fate   fate
	took   time.Duration
}

// fate is what an attempt decided about an event.
type fate int

const (
	run       fate = iota // it ran, or has no handler and was stepped over
	duplicate             // handled before
	behind                // an earlier event of its stream is parked
	early                 // its predecessor was not handled
	parked                // it is parked
	tooOld                // nobody can tell whether it was handled
	tooLate               // it was not handled, but its followers were
)

// parkedKey names a parked event that is due; its stream is zero if it has no order.
type parkedKey struct {
	id     uuid.UUID
	stream rocketflow.Stream
}

// work is what a lane gets: a delivery or a parked event.
type work struct {
	item   *item
	parked parkedKey
}

// lane runs the events of its streams, one transaction at a time. Only its own goroutine touches it.
type lane struct {
	consumer *consumer
	in       chan work
	held     []*item // wait for their predecessors
}

func (l *lane) run(ctx context.Context) {
	for {
		items, due, ok := l.gather(ctx)
		if !ok {
			return
		}
		for _, k := range due {
			if l.consumer.retry(ctx, k) {
				l.consumer.follow(ctx, k.stream)
			}
			l.consumer.retries.Add(-1)
			l.consumer.signal()
		}
		l.settle(ctx, items)
	}
}

// gather waits for work and takes what there is, up to a batch, together with what was held.
func (l *lane) gather(ctx context.Context) (items []*item, due []parkedKey, ok bool) {
	take := func(w work) {
		if w.item != nil {
			items = append(items, w.item)
		} else {
			due = append(due, w.parked)
		}
	}
	var tick <-chan time.Time
	if len(l.held) > 0 {
		// A predecessor may be handled by another process: look a few times before the wait is over.
		fired, giveUp := l.consumer.cfg.Clock.After(max(time.Millisecond, l.consumer.cfg.GapWait/8))
		defer giveUp()
		tick = fired
	}
	closing := l.consumer.closing
	if len(l.held) > 0 {
		closing = nil
	}
	select {
	case w := <-l.in:
		take(w)
	case <-tick:
	case <-closing:
		if len(l.in) == 0 {
			return nil, nil, false
		}
	case <-ctx.Done():
		return nil, nil, false
	}
	for len(items)+len(due) < l.consumer.cfg.BatchSize {
		select {
		case w := <-l.in:
			take(w)
			continue
		default:
		}
		break
	}
	items = append(l.held, items...)
	l.held = nil
	return items, due, true
}

// settle runs items in one transaction, or each in its own if that fails.
func (l *lane) settle(ctx context.Context, items []*item) {
	items = slices.DeleteFunc(items, func(it *item) bool {
		if it.unreadable == nil {
			return false
		}
		l.park(ctx, it, parking{reason: DeadLetter, after: forever, err: it.unreadable})
		return true
	})
	if len(items) == 0 {
		return
	}
	slices.SortStableFunc(items, byStream)
	if len(items) > 1 {
		err := l.consumer.attempt(ctx, items)
		if err == nil {
			for _, it := range items {
				l.finish(ctx, it)
			}
			return
		}
	}
	for _, it := range items {
		l.alone(ctx, it)
	}
}

// alone runs one event in a transaction of its own, and parks it if it fails.
func (l *lane) alone(ctx context.Context, it *item) {
	err := l.consumer.attempt(ctx, []*item{it})
	switch {
	case err == nil:
		l.finish(ctx, it)
	case ctx.Err() != nil:
		it.done <- err
	case isDiscard(err):
		it.done <- l.consumer.discard(ctx, it.event, err)
	default:
		l.park(ctx, it, l.consumer.cfg.Retry.parkingFor(err, 0))
	}
}

// finish settles an event after an attempt that committed.
func (l *lane) finish(ctx context.Context, it *item) {
	c := l.consumer
	switch it.fate {
	case run, parked:
		it.done <- nil
	case duplicate:
		c.cfg.Listener.Duplicate(c.info(it.event))
		it.done <- nil
	case behind:
		l.park(ctx, it, waitBehind)
	case tooOld:
		l.park(ctx, it, parking{reason: DeadLetter, after: forever, err: errTooOld})
	case tooLate:
		stray := *it
		var p parking
		stray.event, p = late(it.event)
		l.park(ctx, &stray, p)
	case early:
		if !it.waits {
			it.waits = true
			c.cfg.Listener.Gap(GapInfo{c.info(it.event), it.stream.last})
		}
		if l.consumer.now().Before(it.until) {
			l.held = append(l.held, it)
			return
		}
		l.park(ctx, it, parking{reason: Gap, after: gapRecheck(0)})
	}
}

// park parks an event and settles it; if its turn has come meanwhile it runs.
func (l *lane) park(ctx context.Context, it *item, p parking) {
	again, err := l.consumer.park(ctx, it.event, p)
	if again {
		l.alone(ctx, it)
		return
	}
	it.done <- err
}

// byStream sorts events without order to the end, as they came.
func byStream(a, b *item) int {
	x, y := a.event, b.event
	if !x.Ordered() || !y.Ordered() {
		return cmp.Compare(b2i(!x.Ordered()), b2i(!y.Ordered()))
	}
	return cmp.Or(
		cmp.Compare(x.Source, y.Source), cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Subject, y.Subject),
		cmp.Compare(x.Sequence, y.Sequence))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
