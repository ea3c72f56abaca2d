package outbox

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// relay sends the committed events that have no half message, in groups: the events that wait for a queue go in one
// request. After a pause the first request is sent at once; then requests to a queue are RelayPace apart, unless one is full.
//
// A queueBuffer holds the events that wait for one queue, and has one request in flight at a time. The events of a stream
// that are in the relay at the same time are all in one buffer, so they keep their order. Memory is bounded by events and by
// bytes. Events that don't fit are read back from Postgres, in order, when there is room; events that can't be sent stay owed.
type relay struct {
	outbox     *Outbox
	acks       *acker
	rejections *batcher[rejectedEvent]
	database   string
	workers    sync.WaitGroup  // not a background.Group: they go on sending after stop was called
	ctx        context.Context // of the sends; ends with the context of stop
	cancel     context.CancelFunc

	mu           sync.Mutex // guards what follows; held briefly
	work         sync.Cond  // ready grew, or quit
	room         sync.Cond  // held shrank, or quit
	buffers      map[queueKey]*queueBuffer
	ready        []*queueBuffer // have events and may send them now
	streams      map[rocketflow.Stream]*streamBuffer
	held         int // events, those in flight included
	bytes        int // of their bodies
	sweptEvents  int // of them from the sweep
	pausedEvents int // of the others, those in paused buffers
	quit         bool
	overflowing  []overflowed // events that didn't fit, the oldest first
	overflowGrew sync.Cond    // or quit
	drops        int          // how often overflowing was emptied because the broker is away
}

// queueKey identifies a queue of a topic by the number of Broker.Shard.
type queueKey struct {
	topic string
	shard int
}

// queueBuffer holds the events that wait for one queue.
type queueBuffer struct {
	key    queueKey
	events []relayed
	state  bufferState
	next   time.Time   // when its next request is due
	pause  *time.Timer // ends a pause; nil: there was none yet
}

// bufferState is the state of a queueBuffer.
type bufferState int

const (
	idle    bufferState = iota // new
	ready                      // in relay.ready
	sending                    // a request is in flight
	paused                     // until the next request is due
)

// streamBuffer is the buffer of a stream. It stays the same for as long as the relay holds events of the stream, even if the
// topic gets more queues meanwhile.
type streamBuffer struct {
	buffer *queueBuffer
	events int
}

// relayed is an event in the relay. done, which only the sweep sets, is called with the outcome.
type relayed struct {
	event rocketflow.Event
	done  func(error)
}

// relayBytes is the size limit of a request. Brokers accept 4 MiB by default.
const relayBytes = 1 << 20

// eventOverhead is the approximate size of an event on the wire without its body.
const eventOverhead = 1 << 10

func (o *Outbox) startRelay(running *services) *relay {
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{
		outbox: o, acks: running.acks, rejections: running.rejections, database: running.database,
		ctx: ctx, cancel: cancel, buffers: map[queueKey]*queueBuffer{}, streams: map[rocketflow.Stream]*streamBuffer{},
	}
	r.work.L, r.room.L, r.overflowGrew.L = &r.mu, &r.mu, &r.mu
	r.workers.Go(r.readBack)
	for range o.config.RelayWorkers {
		r.workers.Go(r.run)
	}
	return r
}

// offer hands over events of a transaction that has committed. It never blocks.
func (r *relay) offer(events ...rocketflow.Event) {
	r.mu.Lock()
	n := 0
	// Behind the events that wait to be read back, so that no stream is overtaken.
	for n < len(events) && !r.quit && len(r.overflowing) == 0 && r.held < r.outbox.config.RelayBuffer && r.bytes < r.outbox.config.RelayBytes {
		r.put(relayed{event: events[n]})
		n++
	}
	r.overflow(events[n:])
	r.mu.Unlock()
	for _, e := range events[n:] {
		r.outbox.listener.RelayFull(e)
	}
}

// send hands over an event of the sweep; done is called with the outcome. It waits until less than half of the memory is
// used: the other half is for events that were just committed. It returns false, without calling done, if the relay ends.
func (r *relay) send(e rocketflow.Event, done func(error)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.putWhenRoom(relayed{e, done})
}

// putWhenRoom waits with mu held, and returns false if the relay ends.
func (r *relay) putWhenRoom(e relayed) bool {
	for !r.quit && (r.held >= (r.outbox.config.RelayBuffer+1)/2 || r.bytes >= (r.outbox.config.RelayBytes+1)/2) {
		r.room.Wait()
	}
	if !r.quit {
		r.put(e)
	}
	return !r.quit
}

// put adds an event to its buffer; called with mu held.
func (r *relay) put(e relayed) {
	b := r.buffer(e.event)
	b.events = slices.Insert(b.events, b.place(e), e)
	r.held++
	r.bytes += len(e.event.Body)
	switch {
	case e.done != nil:
		r.sweptEvents++
	case b.state == paused:
		r.pausedEvents++
	}
	if b.state == idle || b.state == paused && len(b.events) >= r.outbox.config.RelayGroup {
		r.makeReady(b)
	}
}

// lookBack is the maximum number of events before which place puts one: those of transactions that committed at the same time.
const lookBack = 512

// place returns where an event of a transaction belongs among those that wait: transactions that commit one after the other may offer
// their events in another order, and an event that a consumer gets before its predecessor costs it time. Events of the sweep come in
// order, and before all others if they were in order with them, so they go to the end.
func (b *queueBuffer) place(e relayed) int {
	end := len(b.events)
	if e.done != nil {
		return end
	}
	for at := end; at >= max(0, end-lookBack); at-- {
		if at == 0 || sendPosition(b.events[at-1].event) <= sendPosition(e.event) {
			return at
		}
	}
	return end
}

// makeReady hands a buffer to the workers; called with mu held.
func (r *relay) makeReady(b *queueBuffer) {
	if b.state == paused {
		r.pausedEvents -= b.notSwept()
	}
	b.state = ready
	r.ready = append(r.ready, b)
	r.work.Signal()
}

// pauseEnded ends a buffer's pause. A buffer without events is dropped.
func (r *relay) pauseEnded(b *queueBuffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.state != paused {
		return
	}
	if len(b.events) > 0 {
		r.makeReady(b)
	} else if r.buffers[b.key] == b {
		delete(r.buffers, b.key)
	}
}

// buffer returns the buffer of an event, which it creates if need be; called with mu held.
func (r *relay) buffer(e rocketflow.Event) *queueBuffer {
	if h := r.streams[e.Stream()]; h != nil && e.Ordered() {
		h.events++
		return h.buffer
	}
	q := queueKey{e.Topic, r.outbox.config.Broker.Shard(e.Topic, e.Subject)}
	b := r.buffers[q]
	if b == nil {
		b = &queueBuffer{key: q}
		r.buffers[q] = b
	}
	if e.Ordered() {
		r.streams[e.Stream()] = &streamBuffer{buffer: b, events: 1}
	}
	return b
}

// inFlight returns how many events, without the sweep's, are in requests to the broker or could be sent now. behind reports
// that the relay holds an earlier event of a stream of the given events, which have no sequence yet.
func (r *relay) inFlight(events []rocketflow.Event) (n int, behind bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if r.streams[rocketflow.Stream{Source: e.Source, Topic: e.Topic, Subject: e.Subject}] != nil {
			behind = true
		}
	}
	return r.held - r.sweptEvents - r.pausedEvents + len(r.overflowing), behind || len(r.overflowing) > 0
}

// run is the loop of one worker.
func (r *relay) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.ready) == 0 {
			if r.quit {
				return
			}
			r.work.Wait()
		}
		b := r.ready[0]
		r.ready = r.ready[1:]
		group := b.take(r.outbox.config.RelayGroup)
		b.state = sending
		b.next = time.Now().Add(r.outbox.config.RelayPace)
		r.mu.Unlock()
		r.sendGroup(group)
		r.mu.Lock()
		r.sent(group)
		r.afterSending(b)
	}
}

// afterSending pauses a buffer until its next request is due, or makes it ready if that is now.
func (r *relay) afterSending(b *queueBuffer) {
	wait := time.Until(b.next)
	switch {
	case len(b.events) > 0 && (wait <= 0 || r.quit || len(b.events) >= r.outbox.config.RelayGroup):
		r.makeReady(b)
	case wait <= 0 || r.quit:
		delete(r.buffers, b.key)
	default:
		b.state = paused
		r.pausedEvents += b.notSwept()
		if b.pause == nil {
			b.pause = time.AfterFunc(wait, func() { r.pauseEnded(b) })
		} else {
			b.pause.Reset(wait)
		}
	}
}

// take removes from the buffer the events of one request.
func (b *queueBuffer) take(most int) []relayed {
	n, size := 0, 0
	for n < min(most, len(b.events)) {
		size += len(b.events[n].event.Body) + eventOverhead
		if n > 0 && size > relayBytes {
			break
		}
		n++
	}
	group := slices.Clone(b.events[:n])
	b.events = slices.Delete(b.events, 0, n)
	// Events of transactions that committed at the same time may have come in the other order.
	slices.SortStableFunc(group, func(a, b relayed) int { return cmp.Compare(sendPosition(a.event), sendPosition(b.event)) })
	return group
}

// notSwept counts the events that don't come from the sweep.
func (b *queueBuffer) notSwept() (n int) {
	for _, e := range b.events {
		if e.done == nil {
			n++
		}
	}
	return n
}

// sent subtracts a group from the relay's counts and wakes what waits for room.
func (r *relay) sent(group []relayed) {
	for _, e := range group {
		r.bytes -= len(e.event.Body)
		if e.done != nil {
			r.sweptEvents--
		}
		if !e.event.Ordered() {
			continue
		}
		h := r.streams[e.event.Stream()]
		if h.events--; h.events == 0 {
			delete(r.streams, e.event.Stream())
		}
	}
	r.held -= len(group)
	r.room.Broadcast()
}

// sendGroup sends a group in one request and reports the outcome of each event.
func (r *relay) sendGroup(group []relayed) {
	messages := make([]broker.Message, len(group))
	for i, e := range group {
		messages[i] = wire.MessageOf(e.event)
	}
	begin := time.Now()
	errs := r.outbox.config.Broker.SendGroup(r.ctx, messages)
	took := time.Since(begin)
	for i, e := range group {
		var err error
		if errs != nil {
			err = errs[i]
		}
		r.outbox.listener.Relayed(RelayedInfo{Event: e.event, Swept: e.done != nil, Group: len(group), Took: took, Err: err})
		switch {
		case e.done != nil:
			e.done(err) // the sweep writes its acknowledgements itself
		case err == nil:
			r.acks.add(acked{e.event.ID, byRelay})
		case errors.Is(err, broker.ErrRejected):
			r.rejections.add(newRejected(e.event, err))
		default:
			r.dropOverflow() // while the broker is away the sweep probes with few events
		}
	}
	if r.outbox.hasSent {
		events := make([]rocketflow.Event, len(group))
		for i, e := range group {
			events[i] = e.event
		}
		r.outbox.listener.Sent(SentInfo{Events: events, Errs: errs, Path: Relay, Swept: group[0].done != nil, Began: begin, Ended: begin.Add(took)})
	}
}

// stop sends the events in memory until ctx ends.
func (r *relay) stop(ctx context.Context) {
	r.mu.Lock()
	r.quit = true
	for _, b := range r.buffers {
		if b.pause != nil {
			b.pause.Stop()
		}
		if b.state == paused && len(b.events) > 0 {
			r.makeReady(b)
		}
	}
	r.work.Broadcast()
	r.room.Broadcast()
	r.overflowGrew.Broadcast()
	r.mu.Unlock()
	if background.Wait(ctx, &r.workers) != nil {
		r.cancel()
		r.workers.Wait()
	}
	r.cancel()
}
