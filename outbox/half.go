package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// half is an event and its half message, if there is one.
type half struct {
	event    rocketflow.Event
	message  broker.Half
	prepared bool
}

// prepare stores the half messages of a transaction side by side. One that can't be had in time is left to the relay,
// so the broker's state never fails a transaction; an error means that the broker will never take an event.
func (o *Outbox) prepare(ctx context.Context, r *running, t *ticket, events []rocketflow.Event) ([]half, error) {
	halves := make([]half, len(events))
	for i, e := range events {
		halves[i].event = e
	}
	// A caller who is in a hurry must have time left to commit.
	limit := o.config.HalfTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	refused := make([]error, len(events))
	failed := make([]error, len(events))
	sideBySide(len(halves), func(i int) {
		h := &halves[i]
		begin := time.Now()
		var err error
		h.message, err = r.transactor.Prepare(ctx, wire.MessageOf(h.event))
		took := time.Since(begin)
		h.prepared = err == nil
		o.listener.Prepared(PreparedInfo{Event: h.event, Took: took, Err: err})
		switch {
		case err == nil:
		case errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal):
			refused[i] = fmt.Errorf("publish %s to %s: %w", h.event.Type, h.event.Topic, err)
		case errors.Is(err, broker.ErrRejected):
		case took < o.config.HalfTimeout/4 && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
			failed[i] = errNoVerdict // the caller gave up before the broker can be called late
		default:
			failed[i] = err
		}
	})
	if err := worst(failed); err != nil {
		t.verdict(err) // at once: others shall not wait as long
	}
	return halves, errors.Join(refused...)
}

// abandon rolls back the half messages of a transaction that will not commit. It only spares the broker its checks.
func (o *Outbox) abandon(ctx context.Context, r *running, t *ticket, halves []half) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.config.EndTimeout)
	defer cancel()
	sideBySide(len(halves), func(i int) {
		if halves[i].prepared && !t.gears.breaker.open() {
			_ = r.transactor.Rollback(ctx, halves[i].message) // the broker will ask
		}
	})
}

// finish sends the events of a committed transaction: it ends their half messages, those of one stream one after the
// other so that they keep their order, and hands the relay what has none or could not be ended.
func (o *Outbox) finish(ctx context.Context, r *running, t *ticket, halves []half) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.config.EndTimeout)
	defer cancel()
	failed := make([]error, len(halves))
	end := func(i int) {
		h := halves[i]
		// An open breaker: the end would be waited for in vain. What the broker then asks finds the ack, or a row.
		if !h.prepared || t.gears.breaker.open() {
			r.relay.offer(h.event)
			return
		}
		begin := time.Now()
		err := r.transactor.Commit(ctx, h.message)
		o.listener.Ended(EndedInfo{Event: h.event, Took: time.Since(begin), Err: err})
		if err != nil {
			failed[i] = err
			r.relay.offer(h.event)
			return
		}
		r.acks.add(h.event.ID)
	}
	streams := byStream(halves)
	sideBySide(len(streams), func(i int) {
		for _, place := range streams[i] {
			end(place)
		}
	})
	t.verdict(worst(failed))
}

// worst is a failure of the broker, if there is one.
func worst(errs []error) error {
	var found error
	for _, err := range errs {
		if err != nil && (found == nil || errors.Is(found, errNoVerdict)) {
			found = err
		}
	}
	return found
}

// byStream returns the places of the halves of each stream, in order; what has no order stands alone.
func byStream(halves []half) [][]int {
	streams := make([][]int, 0, len(halves))
	if len(halves) == 1 {
		return append(streams, []int{0})
	}
	of := map[rocketflow.Stream]int{}
	for i, h := range halves {
		s := h.event.Stream()
		if n, ok := of[s]; ok && h.event.Ordered() {
			streams[n] = append(streams[n], i)
			continue
		}
		of[s] = len(streams)
		streams = append(streams, []int{i})
	}
	return streams
}

// sideBySide calls fn for 0 to n-1, each in a goroutine of its own but the last, and waits for all.
func sideBySide(n int, fn func(int)) {
	var group sync.WaitGroup
	for i := range n - 1 {
		group.Go(func() { fn(i) })
	}
	if n > 0 {
		fn(n - 1)
	}
	group.Wait()
}
