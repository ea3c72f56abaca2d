package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/background"
)

// lane is a worker of a consumer: it takes work from the queue and executes one turn after the other. It is used by its own
// goroutine only.
type lane struct {
	*consumer
	size batchSize // of the lane's turns
}

func (l *lane) run(ctx context.Context) {
	for {
		w, ok := l.queue.take(l.size.limit)
		if !ok {
			return
		}
		held := map[*group]bool{}
		if w.due != nil {
			l.retry(ctx, *w.due)
			l.retries.Add(-1)
			l.signal()
		} else {
			l.deliver(ctx, w.items, held)
		}
		l.queue.done(w.groups, held)
		for g := range held {
			l.hold(g)
		}
	}
}

// deliver settles deliveries, in one turn if none fails. After a failure the events before the failed one, which were rolled
// back with it, run again without it; the failed one has a turn of its own, in which it runs again unless its outcome is
// final; then come those behind it.
func (l *lane) deliver(ctx context.Context, items []*item, held map[*group]bool) {
	for len(items) > 0 {
		if l.isStopping() {
			l.queue.giveBack(items...)
			return
		}
		n := 1
		if !items[0].alone {
			for n < min(l.size.limit, len(items)) && !items[n].alone {
				n++
			}
		}
		chunk := items[:n]
		if chunk[0].failure == nil {
			if err := l.throttle(ctx, l.handledAmong(chunk)); err != nil {
				l.giveUp(items, err)
				return
			}
		}
		t := l.deliveredTurn(chunk)
		err := t.execute(ctx)
		switch {
		case err == nil:
			if t.failure == nil {
				l.size.succeeded()
			}
			again := l.finish(t, held)
			items = items[n:]
			if len(again) > 0 {
				// The turn's time was up, or a stream must be read anew. Any lane may take these items.
				l.queue.giveBack(append(again, items...)...)
				return
			}
		case ctx.Err() != nil:
			l.giveUp(items, err)
			return
		case errors.Is(err, errPaused):
			l.holdAll()
			l.queue.giveBack(items...)
			return
		case n == 1:
			chunk[0].alone, chunk[0].failure = true, l.opts.Retry.outcome(err)
		default:
			l.size.failed(err)
			if t.failed != nil {
				it := t.failed.item
				it.alone = true
				if v := l.opts.Retry.outcome(err); v.final {
					it.failure = v
				}
			}
		}
	}
}

// handledAmong counts the items that have a handler.
func (l *lane) handledAmong(items []*item) (n int) {
	for _, it := range items {
		if it.unreadable == nil && l.handler(it.event) != nil {
			n++
		}
	}
	return n
}

// giveUp gives items back to the broker.
func (l *lane) giveUp(items []*item, err error) {
	for _, it := range items {
		it.done <- err
	}
}

// finish settles the messages of a turn that has committed, and returns the undecided items. It adds to held the groups whose
// events are early.
func (l *lane) finish(t *turn, held map[*group]bool) (again []*item) {
	for _, c := range t.candidates {
		switch {
		case c.decision == undecided:
			again = append(again, c.item)
		case c.decision == early && c.parked == nil:
			if c.item.until.IsZero() {
				c.item.until = l.now().Add(l.opts.GapWait)
			}
			held[c.item.group] = true
			l.queue.giveBack(c.item)
		default:
			c.item.done <- nil
		}
	}
	return again
}

// hold makes a group ready again after a part of GapWait: another process may have handled the predecessor, so some turns
// check before the wait ends.
func (l *lane) hold(g *group) {
	l.finding.Go(func(ctx context.Context) {
		if background.Sleep(ctx, l.cfg.Clock, max(time.Millisecond, l.opts.GapWait/8)) {
			l.queue.release(g)
		}
	})
}

// putBackTime bounds the statement that makes a parked event due again after a stop has ended its turn.
const putBackTime = time.Second

// followTurns is the maximum number of consecutive turns of a lane for the parked events of one stream.
const followTurns = 4

// retry runs a parked event that is due, and then those that wait behind it.
func (l *lane) retry(ctx context.Context, k parkedKey) {
	if l.isStopping() || l.throttle(ctx, 1) != nil {
		_ = l.putBack(ctx, []parkedKey{k}, 0) // if it fails, it is due later
		return
	}
	t := l.dueTurn(k, nil)
	err := t.execute(ctx)
	switch {
	case ctx.Err() != nil: // ended by a stop: another process can take it at once
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTime)
		defer cancel()
		_ = l.putBack(ctx, []parkedKey{k}, 0)
	case errors.Is(err, errPaused):
		l.holdAll()
		_ = l.putBack(ctx, []parkedKey{k}, 0)
	case err != nil && (t.failed != nil || len(t.ran) > 0):
		_ = l.dueTurn(k, l.opts.Retry.outcome(err)).execute(ctx) // if ctx ends first, it is due again later
	case err != nil:
		// Neither the event nor a passing error of Postgres is the cause. The event stays parked and is due again.
		l.cfg.Logger.Error("a parked event could not be read, locked or stored; it is tried again later", keyConsumer, l.name, keyEvent, k.id, keyError, logText(err))
	case k.stream != (rocketflow.Stream{}) && t.moved():
		l.follow(ctx, k)
	}
}

// follow runs the parked events that wait behind one that was handled.
func (l *lane) follow(ctx context.Context, k parkedKey) {
	limit := l.size.limit
	for turns := 0; turns < followTurns*max(1, 16/limit); turns++ {
		if l.isStopping() || l.throttle(ctx, limit) != nil {
			return // the first of them is due now, and runs in a turn of its own
		}
		t := l.followersTurn(k, limit)
		switch err := t.execute(ctx); {
		case ctx.Err() != nil, errors.Is(err, errPaused):
			return
		case err != nil:
			failed := t.index(t.failed)
			if failed < 1 && limit == 1 || failed == 0 {
				return // the failed one fails again in a turn of its own, which records it
			}
			l.size.failed(err)
			limit = max(1, limit/2)
			if failed > 0 {
				limit = failed
			}
		case !t.moved():
			return
		default:
			l.size.succeeded()
			limit = max(limit, l.size.limit)
		}
	}
}
