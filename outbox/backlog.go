package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// knowledge is how far all sweeps together have looked: rows of transactions older than seen are acked, but for those of
// the transactions in again, which were in progress then or had rows that could not be sent.
type knowledge struct {
	seen  int64
	again []int64 // sorted, below seen
}

// maxAgain bounds again: it is written each time that rows have come.
const maxAgain = 200

// learned is what is known when all transactions below seen have been looked at, of which again are to be looked at once
// more.
func learned(seen int64, again []int64) knowledge {
	slices.Sort(again)
	again = slices.Compact(again)
	if n, _ := slices.BinarySearch(again, seen); n < len(again) {
		again = again[:n]
	}
	if len(again) > maxAgain {
		seen, again = again[maxAgain], again[:maxAgain]
	}
	return knowledge{seen, again}
}

// mark is the transaction below which all rows are acked.
func (k knowledge) mark() int64 {
	if len(k.again) > 0 {
		return k.again[0]
	}
	return k.seen
}

// snapshot says which transactions were visible: those below xmax but for those in progress.
type snapshot struct {
	xmax int64
	xip  []int64
}

// String is Postgres' text form.
func (s snapshot) String() string {
	xip := slices.Sorted(slices.Values(s.xip))
	xmin := s.xmax
	texts := make([]string, len(xip))
	for i, x := range xip {
		texts[i] = strconv.FormatInt(x, 10)
		xmin = min(xmin, x)
	}
	return fmt.Sprintf("%d:%d:%s", xmin, s.xmax, strings.Join(texts, ","))
}

// sight is the sweep's one row, and the snapshot that it was read in.
type sight struct {
	now     snapshot
	known   knowledge
	owed    int64
	oldest  time.Duration // age
	counted snapshot
	recount bool // all may be counted again

	writable    bool // the server takes writes
	anyRejected bool
	rejected    []rejectedCount // as last counted
}

// rejectedCount is what the sweep's row says of a topic.
type rejectedCount struct {
	Topic  string `json:"topic"`
	Events int64  `json:"events"`
	Since  int64  `json:"since"` // Unix time
	Reason string `json:"reason"`
}

// look reads the sweep's row.
func (o *Outbox) look(ctx context.Context) (v sight, err error) {
	var seconds float64
	var rejected string
	err = o.config.Pool.QueryRow(ctx, o.queries.Get("Look")).
		Scan(&v.writable, &v.now.xmax, &v.now.xip, &v.known.seen, &v.known.again, &v.owed, &seconds, &v.counted.xmax, &v.counted.xip, &v.recount, &v.anyRejected, &rejected)
	if err == nil {
		err = json.Unmarshal([]byte(rejected), &v.rejected)
	}
	if err != nil {
		return v, fmt.Errorf("read how far the sweep is: %w", err)
	}
	v.oldest = time.Duration(seconds * float64(time.Second))
	slices.Sort(v.known.again)
	return v, nil
}

func (o *Outbox) readBacklog(ctx context.Context) error {
	v, err := o.look(ctx)
	if err != nil {
		return err
	}
	o.updateGauge(v)
	return nil
}

func (o *Outbox) updateGauge(v sight) {
	rejected := o.gauge.update(o.config.Clock.Now(), v)
	for _, topic := range o.said.forget(rejected) {
		o.log.Info("no event of the topic is rejected any more", "topic", topic)
	}
}

// gauge is what this process believes to be owed: what the sweep, of whichever process, has last counted, and what this
// one has committed since and has no ack for.
type gauge struct {
	limit      int64
	topicLimit int64 // of the rejected events of one topic

	mu     sync.Mutex
	known  knowledge
	owed   int64
	oldest time.Duration // age when read
	read   time.Time     // by the configured clock
	own    int64         // committed here, less what was acked here
	base   int64         // own, at the reading before the last: what was committed since may not be counted yet
	last   int64         // own, at the last reading
	full   bool

	rejected map[string]*rejectedTopic
}

// rejectedTopic is what is known of the rejected events of a topic; own, base and last are as in gauge.
type rejectedTopic struct {
	counted         int64
	own, base, last int64
	since           time.Time
	reason          string
}

func (r *rejectedTopic) estimate() int64 { return max(r.counted, r.own-r.base) }

// update takes over what the sweep has counted, and returns a copy of what is rejected.
func (g *gauge) update(now time.Time, v sight) map[string]*rejectedTopic {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known, g.owed, g.oldest, g.read = v.known, v.owed, v.oldest, now
	g.base, g.last = g.last, g.own
	for _, r := range g.rejected {
		r.counted = 0
		r.base, r.last = r.last, r.own
	}
	for _, c := range v.rejected {
		r := g.topic(c.Topic)
		r.counted, r.since, r.reason = c.Events, time.Unix(c.Since, 0), c.Reason
	}
	maps.DeleteFunc(g.rejected, func(_ string, r *rejectedTopic) bool { return r.estimate() == 0 })
	g.judge()
	return maps.Clone(g.rejected)
}

func (g *gauge) topic(name string) *rejectedTopic {
	r := g.rejected[name]
	if r == nil {
		if g.rejected == nil {
			g.rejected = map[string]*rejectedTopic{}
		}
		r = &rejectedTopic{since: g.read}
		g.rejected[name] = r
	}
	return r
}

// reject counts what this process has noted as rejected. relayed tells that it comes from the relay, so that it is among
// what this process has committed, and is taken from that; what the sweep found is taken from its own count.
func (g *gauge) reject(all []rejectedEvent, relayed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range all {
		r := g.topic(e.topic)
		r.own++
		r.reason = e.reason
	}
	if relayed {
		g.own -= int64(len(all))
	} else {
		g.owed = max(0, g.owed-int64(len(all)))
	}
	g.judge()
}

// listener keeps account of what this process owes.
func (g *gauge) listener() *Listener {
	return &Listener{
		Committed: func(events []rocketflow.Event) { g.add(len(events)) },
		Acked: func(i AckedInfo) {
			if i.Err == nil {
				g.add(-len(i.IDs))
			}
		},
	}
}

func (g *gauge) unread() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.read.IsZero()
}

func (g *gauge) add(events int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own += int64(events)
	g.judge()
}

// judge decides whether to take more. What has been full stays so until a fifth is drained, so that callers don't meet
// it open and shut in turn.
func (g *gauge) judge() {
	switch owed := g.estimate(); {
	case g.limit < 0:
	case owed >= g.limit:
		g.full = true
	case owed <= g.limit*4/5:
		g.full = false
	}
}

// countLimit is where counting ends.
func (g *gauge) countLimit() int64 {
	if g.limit < 0 {
		return 200_000
	}
	return 2 * g.limit
}

func (g *gauge) estimate() int64 { return g.owed + max(0, g.own-g.base) }

// age is that of the oldest event; called with mu held.
func (g *gauge) age(now time.Time) time.Duration {
	if g.owed == 0 {
		return 0
	}
	return g.oldest + max(0, now.Sub(g.read))
}

// admit refuses more when too much is owed.
func (o *Outbox) admit() error {
	g := &o.gauge
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.full {
		return nil
	}
	return &rocketflow.BackpressureError{Backlog: g.estimate(), Oldest: g.age(o.config.Clock.Now())}
}

// admitTopic refuses more of a topic of which too many events are rejected. Others are not concerned.
func (o *Outbox) admitTopic(topic string) error {
	g := &o.gauge
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rejected[topic]
	if r == nil || g.topicLimit < 0 || r.estimate() < g.topicLimit {
		return nil
	}
	return &rocketflow.BackpressureError{
		Backlog: r.estimate(), Oldest: max(0, o.config.Clock.Now().Sub(r.since)), Topic: topic, Reason: r.reason,
	}
}

// RejectedTopic counts the owed events of a topic that the broker rejects.
type RejectedTopic struct {
	Topic  string
	Events int64
	Since  time.Time // when the broker first rejected the first of them
	Reason string    // of one of them
}

// Rejected tells of which topics the broker rejects events, as known to this process: what it met itself, and what the
// sweep has counted some seconds ago. It asks nobody.
func (o *Outbox) Rejected() []RejectedTopic {
	g := &o.gauge
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []RejectedTopic
	for topic, r := range g.rejected {
		all = append(all, RejectedTopic{Topic: topic, Events: r.estimate(), Since: r.since, Reason: r.reason})
	}
	slices.SortFunc(all, func(a, b RejectedTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return all
}

// Backlog tells how many events are owed to the broker, and how old the oldest is, those that the broker rejects included
// (Rejected tells them apart). It costs little whatever is owed: up to SweepPage events are counted; beyond that the answer
// is what the sweep has counted, at most a few seconds old, or a bit more than that (but not more than twice MaxBacklog).
func (o *Outbox) Backlog(ctx context.Context) (events int64, oldest time.Duration, err error) {
	g := &o.gauge
	if g.unread() {
		if err := o.readBacklog(ctx); err != nil {
			return 0, 0, err
		}
	}
	g.mu.Lock()
	now := o.config.Clock.Now()
	events, oldest, known := g.estimate(), g.age(now), g.known
	var rejected int64
	var waited time.Duration
	for _, r := range g.rejected {
		rejected += r.estimate()
		waited = max(waited, now.Sub(r.since))
	}
	g.mu.Unlock()
	page := int64(o.config.SweepPage)
	if events > page {
		return events + rejected, max(oldest, waited), nil
	}
	var (
		seconds          float64
		flowing, refused int64
	)
	if err := o.config.Pool.QueryRow(ctx, o.queries.Get("OldestOwed"), known.seen, known.again, page).Scan(&seconds, &flowing, &refused); err != nil {
		return 0, 0, fmt.Errorf("read backlog: %w", err)
	}
	oldest = time.Duration(seconds * float64(time.Second))
	if refused >= page {
		refused, oldest = max(refused, rejected), max(oldest, waited)
	}
	return flowing + refused, oldest, nil
}
