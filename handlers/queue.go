package handlers

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// errStopped gives a delivery back to the broker.
var errStopped = errors.New("stopped before the event was handled")

// item is a delivery that a consumer has received and not settled.
type item struct {
	event      rocketflow.Event
	unreadable error      // why the message is no event
	until      time.Time  // when its wait in memory for its predecessor ends; zero: it is not early
	alone      bool       // it gets a turn of its own, because it failed in a turn with others
	failure    *outcome   // the outcome of its handler's failure, which its next turn records
	done       chan error // buffered; nil settles the message
	group      *group     // set by queue.add
}

// parkedKey identifies a parked event that is due, or the next one of a stream.
type parkedKey struct {
	source  string
	id      uuid.UUID         // Nil: the first parked event of the stream
	stream  rocketflow.Stream // zero if it has no order
	keyed   bool              // it belongs to the group of its subject
	subject string
}

// group is the events of a consumer that must not run concurrently: the ordered events of one aggregate and its timeouts,
// whose handlers use the same rows; or a single event without order.
type group struct {
	subject string
	single  bool // of an event without order
	items   []*item
	due     []parkedKey
	queued  bool // in queue.ready
	held    bool // its items are early; one that they may wait for, or release, makes it ready
	running bool
	wake    bool // while it ran, an event came that its early ones may wait for
	since   time.Time // when its running turn began
}

// queue holds the deliveries and the due events of a consumer in groups, and gives them to its lanes. The events of a group
// never run concurrently.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	groups  map[string]*group // by subject
	ready   []*group
	waiting int // deliveries in ready groups
	lanes   int
	closed  bool
	paused  bool // take returns nothing: the consumer is paused
}

func newQueue(lanes int) *queue {
	q := &queue{groups: map[string]*group{}, lanes: lanes}
	q.changed.L = &q.mu
	return q
}

// work is what the queue gives a lane for a turn: deliveries of some groups, or one parked event.
type work struct {
	groups []*group
	items  []*item
	due    *parkedKey
}

// add adds a delivery. It returns false if the queue is closed.
func (q *queue) add(it *item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	e := it.event
	g := &group{single: true}
	if e.Ordered() || e.TimeoutName != "" {
		g = q.group(e.Subject)
	}
	it.group = g
	if !q.insert(g, it) {
		g.held, g.wake = false, g.running
	}
	q.enqueue(g)
	return true
}

// addDue adds a parked event that is due. It returns false if its group has been busy for long, or if the queue is closed.
func (q *queue) addDue(k parkedKey) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	g := &group{single: true}
	if k.keyed {
		g = q.group(k.subject)
	}
	if g.isBusy() {
		return false
	}
	g.due = append(g.due, k)
	q.enqueue(g)
	return true
}

func (q *queue) group(subject string) *group {
	g := q.groups[subject]
	if g == nil {
		g = &group{subject: subject}
		q.groups[subject] = g
	}
	return g
}

// insert adds an item to a group, in the order of the streams. It reports whether the item is behind another of its stream: then
// no early item of the group waits for it.
func (q *queue) insert(g *group, it *item) (behind bool) {
	at, _ := slices.BinarySearchFunc(g.items, it, byStream)
	for at < len(g.items) && byStream(g.items[at], it) == 0 {
		at++
	}
	g.items = slices.Insert(g.items, at, it)
	if g.queued {
		q.waiting++
	}
	return at > 0 && it.event.Ordered() && it.event.Stream() == g.items[at-1].event.Stream()
}

// enqueue makes a group ready if it has events and is not running.
func (q *queue) enqueue(g *group) {
	if g.running || g.queued || len(g.due) == 0 && (g.held || len(g.items) == 0) {
		return
	}
	g.queued = true
	q.waiting += len(g.items)
	q.ready = append(q.ready, g)
	q.changed.Signal()
}

// take waits for work and returns it, up to limit deliveries; the lanes share the ready deliveries evenly. ok is false once
// the queue is closed.
func (q *queue) take(limit int) (w work, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for (len(q.ready) == 0 || q.paused) && !q.closed {
		q.changed.Wait()
	}
	if q.closed {
		return w, false
	}
	share := min(max(1, (q.waiting+q.lanes-1)/q.lanes), limit)
	for len(q.ready) > 0 && len(w.items) < share {
		g := q.ready[0]
		if len(g.due) > 0 && len(w.groups) > 0 {
			break // a parked event has a turn of its own
		}
		q.ready = q.ready[1:]
		q.waiting -= len(g.items)
		g.queued, g.running, g.since = false, true, time.Now()
		w.groups = append(w.groups, g)
		if len(g.due) > 0 {
			w.due = &g.due[0]
			g.due = g.due[1:]
			break
		}
		n := min(len(g.items), limit-len(w.items))
		w.items = append(w.items, g.items[:n]...)
		g.items = slices.Clone(g.items[n:])
	}
	return w, true
}

// pause makes take wait, or ends that.
func (q *queue) pause(paused bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.paused != paused {
		q.paused = paused
		q.changed.Broadcast()
	}
}

func (q *queue) isPaused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.paused
}

// withdraw removes a delivery that no lane has begun: the broker has taken it back.
func (q *queue) withdraw(it *item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	g := it.group
	i := slices.Index(g.items, it)
	if i < 0 {
		return
	}
	g.items = slices.Delete(g.items, i, i+1)
	if g.queued {
		q.waiting--
	}
	if g.queued && len(g.items) == 0 && len(g.due) == 0 {
		g.queued = false
		q.ready = slices.DeleteFunc(q.ready, func(other *group) bool { return other == g })
	}
	q.settle(g)
}

// giveBack returns items that a turn has not settled to the queue.
func (q *queue) giveBack(items ...*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range items {
		if q.closed {
			it.done <- errStopped
			continue
		}
		q.insert(it.group, it)
	}
}

// done ends the turn of groups. Those in held wait until an event comes that their early ones may wait for, or release is called.
func (q *queue) done(groups []*group, held map[*group]bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range groups {
		g.running = false
		g.held = held[g] && !g.wake
		g.wake = false
		q.settle(g)
	}
}

// release ends the wait of a held group.
func (q *queue) release(g *group) {
	q.mu.Lock()
	defer q.mu.Unlock()
	g.held = false
	q.settle(g)
}

// settle makes a group ready, or removes it if it is empty.
func (q *queue) settle(g *group) {
	if q.closed {
		q.reject(g)
	}
	q.enqueue(g)
	if !g.running && !g.single && len(g.items) == 0 && len(g.due) == 0 && q.groups[g.subject] == g {
		delete(q.groups, g.subject)
	}
}

// busyAfter is how long a group's turn takes before the group counts as busy: then events are parked behind it.
const busyAfter = time.Second

func (g *group) isBusy() bool { return g.running && time.Since(g.since) > busyAfter }

// divert removes an item from the queue if its group has been busy for long and more than share items wait for it. It reports
// whether it has removed the item; then the caller settles it.
func (q *queue) divert(it *item, share int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	g := it.group
	if !g.isBusy() || len(g.items) <= share {
		return false
	}
	i := slices.Index(g.items, it)
	if i < 0 {
		return false
	}
	g.items = slices.Delete(g.items, i, i+1)
	return true
}

// close gives deliveries that no lane has begun back to the broker, and returns the parked events. Lanes get no more work.
func (q *queue) close() (due []parkedKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, g := range q.groups {
		due = append(due, q.reject(g)...)
	}
	for _, g := range q.ready {
		due = append(due, q.reject(g)...)
	}
	q.ready, q.waiting = nil, 0
	q.changed.Broadcast()
	return due
}

func (q *queue) reject(g *group) (due []parkedKey) {
	for _, it := range g.items {
		it.done <- errStopped
	}
	due = g.due
	g.items, g.due = nil, nil
	return due
}

// byStream sorts deliveries by stream and sequence, those without order to the end.
func byStream(a, b *item) int {
	x, y := a.event, b.event
	switch {
	case x.Ordered() != y.Ordered() && x.Ordered():
		return -1
	case x.Ordered() != y.Ordered():
		return 1
	case !x.Ordered():
		return 0
	}
	return cmp.Or(
		cmp.Compare(x.Source, y.Source), cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Subject, y.Subject),
		cmp.Compare(x.Sequence, y.Sequence))
}
