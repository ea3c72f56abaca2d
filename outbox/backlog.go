package outbox

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

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
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// look reads the sweep's row and, if lock is set, tries to become the one that sweeps.
func (o *Outbox) look(ctx context.Context, conn querier, lock bool) (v sight, ours bool, err error) {
	var seconds float64
	err = conn.QueryRow(ctx, o.queries.Get("Look"), o.sweepLock(), lock).
		Scan(&ours, &v.now.xmax, &v.now.xip, &v.known.seen, &v.known.again, &v.owed, &seconds, &v.counted.xmax, &v.counted.xip, &v.recount)
	if err != nil {
		return v, false, fmt.Errorf("read how far the sweep is: %w", err)
	}
	v.oldest = time.Duration(seconds * float64(time.Second))
	slices.Sort(v.known.again)
	return v, ours, nil
}

func (o *Outbox) readBacklog(ctx context.Context) error {
	v, _, err := o.look(ctx, o.config.Pool, false)
	if err != nil {
		return err
	}
	o.gauge.update(o.config.Clock.Now(), v)
	return nil
}

func (o *Outbox) sweepLock() string { return "rocketflow sweep " + o.config.Schema }

// gauge is what this process believes to be owed: what the sweep, of whichever process, has last counted, and what this
// one has committed since and has no ack for.
type gauge struct {
	limit int64

	mu     sync.Mutex
	known  knowledge
	owed   int64
	oldest time.Duration // age when read
	read   time.Time     // by the configured clock
	own    int64         // committed here, less what was acked here
	base   int64         // own, at the reading before the last: what was committed since may not be counted yet
	last   int64         // own, at the last reading
	full   bool
}

// update takes over what the sweep has counted.
func (g *gauge) update(now time.Time, v sight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known, g.owed, g.oldest, g.read = v.known, v.owed, v.oldest, now
	g.base, g.last = g.last, g.own
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

// Backlog tells how many events are owed to the broker, and how old the oldest is. It costs little whatever is owed: up
// to SweepPage events are counted; beyond that the answer is what the sweep has counted, at most a few seconds old, or a
// bit more than that (but not more than twice MaxBacklog).
func (o *Outbox) Backlog(ctx context.Context) (events int64, oldest time.Duration, err error) {
	g := &o.gauge
	if g.unread() {
		if err := o.readBacklog(ctx); err != nil {
			return 0, 0, err
		}
	}
	g.mu.Lock()
	events, oldest, known := g.estimate(), g.age(o.config.Clock.Now()), g.known
	g.mu.Unlock()
	page := int64(o.config.SweepPage)
	if events > page {
		return events, oldest, nil
	}
	var (
		seconds float64
		n       int64
	)
	if err := o.config.Pool.QueryRow(ctx, o.queries.Get("OldestOwed"), known.seen, known.again, page).Scan(&seconds, &n); err != nil {
		return 0, 0, fmt.Errorf("read backlog: %w", err)
	}
	return n, time.Duration(seconds * float64(time.Second)), nil
}
