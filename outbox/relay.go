package outbox

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// relay sends the committed events that no half message carries (gear B), each with a message of its own. The events
// of a stream go through the same worker, so they keep their order. Its memory is bounded; what doesn't fit, and what
// can't be sent, stays owed.
//
// Sends in groups take this place: what has gathered for a queue goes in one request.
type relay struct {
	outbox  *Outbox
	acks    *acker
	workers []chan relayed
	group   sync.WaitGroup
	seed    maphash.Seed
	quit    chan struct{}   // closed: end when nothing waits
	ctx     context.Context // of the sends; ends when stop's patience does
	cancel  context.CancelFunc
}

// relayed is an event on its way through the relay. done, if not nil, gets the outcome.
type relayed struct {
	event rocketflow.Event
	done  func(error)
}

func (o *Outbox) startRelay(acks *acker) *relay {
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{outbox: o, acks: acks, seed: maphash.MakeSeed(), quit: make(chan struct{}), ctx: ctx, cancel: cancel}
	for range o.config.RelayWorkers {
		events := make(chan relayed, max(1, o.config.RelayBuffer/o.config.RelayWorkers))
		r.workers = append(r.workers, events)
		r.group.Go(func() { r.run(events) })
	}
	return r
}

func (r *relay) worker(e rocketflow.Event) chan relayed {
	key := e.ID.String()
	if e.Ordered() {
		key = e.Topic + "\x00" + e.Subject
	}
	return r.workers[maphash.String(r.seed, key)%uint64(len(r.workers))]
}

// offer hands over an event of a transaction that has committed. It never blocks.
func (r *relay) offer(e rocketflow.Event) {
	select {
	case r.worker(e) <- relayed{event: e}:
	default:
		r.outbox.listener.RelayFull(e)
	}
}

// send hands over an event and calls done with the outcome; it waits for room. It returns false, without calling done,
// if the relay ends.
func (r *relay) send(e rocketflow.Event, done func(error)) bool {
	select {
	case r.worker(e) <- relayed{e, done}:
		return true
	case <-r.quit:
		return false
	}
}

func (r *relay) run(events chan relayed) {
	for {
		select {
		case e := <-events:
			r.sendOne(e)
		case <-r.quit:
			for {
				select {
				case e := <-events:
					r.sendOne(e)
				default:
					return
				}
			}
		}
	}
}

func (r *relay) sendOne(e relayed) {
	begin := time.Now()
	_, err := r.outbox.config.Broker.Send(r.ctx, e.event.Message())
	if errors.Is(err, broker.ErrRejected) {
		r.outbox.log.Error("broker rejects an event: it stays owed until somebody mends the cause",
			"event_id", e.event.ID, "topic", e.event.Topic, "type", e.event.Type, "error", err)
	}
	r.outbox.listener.Relayed(RelayedInfo{Event: e.event, Swept: e.done != nil, Took: time.Since(begin), Err: err})
	if e.done != nil {
		e.done(err) // the sweep writes its acks itself
	} else if err == nil {
		r.acks.add(e.event.ID)
	}
}

// stop sends what is in memory and waits for it until ctx ends.
func (r *relay) stop(ctx context.Context) {
	close(r.quit)
	ended := context.AfterFunc(ctx, r.cancel)
	r.group.Wait()
	ended()
	r.cancel()
}
