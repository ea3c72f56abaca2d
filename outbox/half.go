package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// half is an event and its half message, if there is one.
type half struct {
	event    rocketflow.Event
	message  broker.Half
	prepared bool
}

// prepare stores the half messages of a transaction side by side. One that can't be had in time is left to the relay,
// so the broker's state never fails a transaction; an error means that the broker will never take an event.
//
// The bound on half messages in flight, and the breaker that spares a transaction the wait for a broker that is away,
// belong here: they make prepared stay false.
func (o *Outbox) prepare(ctx context.Context, events []rocketflow.Event) ([]half, error) {
	r := o.current()
	halves := make([]half, len(events))
	for i, e := range events {
		halves[i].event = e
	}
	if r == nil {
		return halves, ErrNotStarted
	}
	if o.config.RelayOnly {
		return halves, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.config.HalfTimeout)
	defer cancel()
	errs := make([]error, len(events))
	sideBySide(len(halves), func(i int) {
		h := &halves[i]
		begin := time.Now()
		var err error
		h.message, err = r.transactor.Prepare(ctx, h.event.Message())
		h.prepared = err == nil
		o.listener.Prepared(PreparedInfo{Event: h.event, Took: time.Since(begin), Err: err})
		if errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal) {
			errs[i] = fmt.Errorf("publish %s to %s: %w", h.event.Type, h.event.Topic, err)
		}
	})
	return halves, errors.Join(errs...)
}

// abandon rolls back the half messages of a transaction that will not commit. It only spares the broker its checks.
func (o *Outbox) abandon(ctx context.Context, halves []half) {
	r := o.current()
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.config.EndTimeout)
	defer cancel()
	sideBySide(len(halves), func(i int) {
		if halves[i].prepared {
			_ = r.transactor.Rollback(ctx, halves[i].message) // the broker will ask
		}
	})
}

// finish sends the events of a committed transaction: it ends their half messages, those of one stream one after the
// other so that they keep their order, and hands the relay what has none or could not be ended.
func (o *Outbox) finish(ctx context.Context, halves []half) {
	r := o.current()
	if r == nil {
		return // stopped meanwhile; owed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.config.EndTimeout)
	defer cancel()
	end := func(h half) {
		if !h.prepared {
			r.relay.offer(h.event)
			return
		}
		begin := time.Now()
		err := r.transactor.Commit(ctx, h.message)
		o.listener.Ended(EndedInfo{Event: h.event, Took: time.Since(begin), Err: err})
		if err != nil {
			r.relay.offer(h.event)
			return
		}
		r.acks.add(h.event.ID)
	}
	if len(halves) == 1 {
		end(halves[0])
		return
	}
	var streams [][]half
	place := map[rocketflow.Stream]int{}
	for _, h := range halves {
		s := h.event.Stream()
		if i, ok := place[s]; ok && h.event.Ordered() {
			streams[i] = append(streams[i], h)
			continue
		}
		place[s] = len(streams)
		streams = append(streams, []half{h})
	}
	sideBySide(len(streams), func(i int) {
		for _, h := range streams[i] {
			end(h)
		}
	})
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
