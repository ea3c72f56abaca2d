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

// relay sends the committed events that no half message carries (gear B), in groups: what has gathered for a queue goes in
// one request. After a pause the first goes at once; then requests to a queue are RelayPace apart, unless one is full.
//
// A lane holds what waits for one queue, and has one request in flight at a time. The events of a stream that are here at
// once are all in one lane, so they keep their order. Memory is bounded, by events and by bytes; what doesn't fit is read
// back from Postgres when there is room, in order, and what can't be sent stays owed.
type relay struct {
	outbox     *Outbox
	acks       *acker
	rejections *batcher[rejectedEvent]
	database   string
	workers    sync.WaitGroup  // not a background.Group: they go on sending after stop was called
	ctx        context.Context // of the sends; ends when stop's patience does
	cancel     context.CancelFunc

	mu      sync.Mutex // guards what follows; held briefly
	work    sync.Cond  // ready grew, or quit
	room    sync.Cond  // held shrank, or quit
	lanes   map[queue]*lane
	ready   []*lane // may send, and have something to
	streams map[rocketflow.Stream]*home
	held    int // events, those in flight included
	bytes   int // of their bodies
	swept   int // of them from the sweep
	resting int // of the others, those in lanes that rest
	quit    bool
	spill   []spilled // what didn't fit, the oldest first
	spilled sync.Cond // spill grew, or quit
	dropped int       // how often it was emptied because the broker is away
}

// queue is a topic's queue, as far as the broker tells.
type queue struct {
	topic string
	shard int
}

type lane struct {
	queue  queue
	events []relayed
	state  laneState
	next   time.Time   // when its next request is due
	rest   *time.Timer // ends a rest; nil: none was taken yet
}

type laneState int

const (
	idle    laneState = iota // new
	ready                    // among the ready
	sending                  // a request is in flight
	resting                  // until the next is due
)

// home is the lane of a stream for as long as the relay holds events of it, should the topic be given more queues
// meanwhile.
type home struct {
	lane   *lane
	events int
}

// relayed is an event on its way through the relay. done, if not nil, gets the outcome.
type relayed struct {
	event rocketflow.Event
	done  func(error)
}

// relayBytes bounds a request: brokers take 4 MiB unless they are set to less.
const relayBytes = 1 << 20

// eventOverhead is about what an event takes on the wire beside its body.
const eventOverhead = 1 << 10

func (o *Outbox) startRelay(running *services) *relay {
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{
		outbox: o, acks: running.acks, rejections: running.rejections, database: running.database,
		ctx: ctx, cancel: cancel, lanes: map[queue]*lane{}, streams: map[rocketflow.Stream]*home{},
	}
	r.work.L, r.room.L, r.spilled.L = &r.mu, &r.mu, &r.mu
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
	// Behind what waits to be read back, so that no stream is overtaken.
	for n < len(events) && !r.quit && len(r.spill) == 0 && r.held < r.outbox.config.RelayBuffer && r.bytes < r.outbox.config.RelayBytes {
		r.put(relayed{event: events[n]})
		n++
	}
	r.spillOver(events[n:])
	r.mu.Unlock()
	for _, e := range events[n:] {
		r.outbox.listener.RelayFull(e)
	}
}

// send hands over an event and calls done with the outcome. It waits until it would take the lesser half of the memory:
// the rest is for what was just committed. It returns false, without calling done, if the relay ends.
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

func (r *relay) put(e relayed) {
	l := r.lane(e.event)
	l.events = append(l.events, e)
	r.held++
	r.bytes += len(e.event.Body)
	switch {
	case e.done != nil:
		r.swept++
	case l.state == resting:
		r.resting++
	}
	if l.state == idle || l.state == resting && len(l.events) >= r.outbox.config.RelayGroup {
		r.makeReady(l)
	}
}

func (r *relay) makeReady(l *lane) {
	if l.state == resting {
		r.resting -= l.fresh()
	}
	l.state = ready
	r.ready = append(r.ready, l)
	r.work.Signal()
}

// rested ends a lane's rest. One that has nothing to send is forgotten.
func (r *relay) rested(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.state != resting {
		return
	}
	if len(l.events) > 0 {
		r.makeReady(l)
	} else if r.lanes[l.queue] == l {
		delete(r.lanes, l.queue)
	}
}

func (r *relay) lane(e rocketflow.Event) *lane {
	if h := r.streams[e.Stream()]; h != nil && e.Ordered() {
		h.events++
		return h.lane
	}
	q := queue{e.Topic, r.outbox.config.Broker.Shard(e.Topic, e.Subject)}
	l := r.lanes[q]
	if l == nil {
		l = &lane{queue: q}
		r.lanes[q] = l
	}
	if e.Ordered() {
		r.streams[e.Stream()] = &home{lane: l, events: 1}
	}
	return l
}

// inFlight counts the events, but for the sweep's, for which a request to the broker is made or could be made. behind
// reports that the relay holds an event of a stream of these, which have no sequence yet.
func (r *relay) inFlight(events []rocketflow.Event) (n int, behind bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if r.streams[rocketflow.Stream{Source: e.Source, Topic: e.Topic, Subject: e.Subject}] != nil {
			behind = true
		}
	}
	return r.held - r.swept - r.resting + len(r.spill), behind || len(r.spill) > 0
}

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
		l := r.ready[0]
		r.ready = r.ready[1:]
		group := l.take(r.outbox.config.RelayGroup)
		l.state = sending
		l.next = time.Now().Add(r.outbox.config.RelayPace)
		r.mu.Unlock()
		r.sendGroup(group)
		r.mu.Lock()
		r.sent(group)
		r.afterSending(l)
	}
}

// afterSending has a lane rest until its next request is due, or go on if that is now.
func (r *relay) afterSending(l *lane) {
	wait := time.Until(l.next)
	switch {
	case len(l.events) > 0 && (wait <= 0 || r.quit || len(l.events) >= r.outbox.config.RelayGroup):
		r.makeReady(l)
	case wait <= 0 || r.quit:
		delete(r.lanes, l.queue)
	default:
		l.state = resting
		r.resting += l.fresh()
		if l.rest == nil {
			l.rest = time.AfterFunc(wait, func() { r.rested(l) })
		} else {
			l.rest.Reset(wait)
		}
	}
}

// take removes what goes in one request.
func (l *lane) take(most int) []relayed {
	n, size := 0, 0
	for n < min(most, len(l.events)) {
		size += len(l.events[n].event.Body) + eventOverhead
		if n > 0 && size > relayBytes {
			break
		}
		n++
	}
	group := slices.Clone(l.events[:n])
	l.events = slices.Delete(l.events, 0, n)
	// Neighbours that committed side by side may have come in the other order.
	slices.SortStableFunc(group, func(a, b relayed) int { return cmp.Compare(place(a.event), place(b.event)) })
	return group
}

// fresh counts the events that are not the sweep's.
func (l *lane) fresh() (n int) {
	for _, e := range l.events {
		if e.done == nil {
			n++
		}
	}
	return n
}

// sent forgets a group.
func (r *relay) sent(group []relayed) {
	for _, e := range group {
		r.bytes -= len(e.event.Body)
		if e.done != nil {
			r.swept--
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
			e.done(err) // the sweep writes its acks itself
		case err == nil:
			r.acks.add(e.event.ID)
		case errors.Is(err, broker.ErrRejected):
			r.rejections.add(newRejected(e.event, err))
		default:
			r.dropSpill() // the sweep is more careful with a broker that is away
		}
	}
}

// stop sends what is in memory and waits for it until ctx ends.
func (r *relay) stop(ctx context.Context) {
	r.mu.Lock()
	r.quit = true
	for _, l := range r.lanes {
		if l.rest != nil {
			l.rest.Stop()
		}
		if l.state == resting && len(l.events) > 0 {
			r.makeReady(l)
		}
	}
	r.work.Broadcast()
	r.room.Broadcast()
	r.spilled.Broadcast()
	r.mu.Unlock()
	if background.Wait(ctx, &r.workers) != nil {
		r.cancel()
		r.workers.Wait()
	}
	r.cancel()
}
