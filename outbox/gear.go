package outbox

import (
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// Path is how events get from a committed transaction to the broker.
type Path int

const (
	// Auto takes half messages while they can be had at once, and the relay otherwise. The transaction decides, for all
	// its events, before it commits.
	Auto Path = iota
	// HalfMessages: a half message for each event, however many are in flight. Lowest latency. While the broker is away
	// the relay takes their place, as with Auto, and always for joined transactions.
	HalfMessages
	// Relay: events are sent in groups after the commit. Highest throughput.
	Relay
)

// String returns the gear's name in lower case.
func (g Path) String() string {
	switch g {
	case Auto:
		return "auto"
	case HalfMessages:
		return "half messages"
	case Relay:
		return "relay"
	}
	return "unknown"
}

// Why a process changed gear.
const (
	WhyPinned        = "pinned"         // by Config, at the start
	WhyBusy          = "busy"           // most transactions find no half message free
	WhyFree          = "free"           // most find one again
	WhyBreakerOpen   = "breaker open"   // the broker fails or is late
	WhyBreakerClosed = "breaker closed" // it answers again
)

// gears decides which gear a transaction takes, without ever waiting: half messages while few events are on their way, in
// commits or at the broker, by whichever gear. So a process that is busy goes by the relay altogether: a few half messages
// beside it would cost the broker more than they save anybody. What only gathers in the relay doesn't count, but no event
// overtakes one of its stream there, unless it probes a broker that was away: its reader holds it until the other comes.
type gears struct {
	pinned   Path
	breaker  *breaker
	relay    *relay
	listener *Listener

	mu     sync.Mutex // taken under the breaker's own, never the other way around
	free   int        // events that may be on their way beside those that are, the relay's not counted; below 0: too many
	broken bool       // the breaker is not closed
	busy   bool       // as told
	told   Path
	since  time.Time // when the counts below began
	halves int       // transactions that took half messages
	relays int       // that found none free
}

// A process is called busy, or no longer busy, by what so many transactions found in a while: single ones go either way
// all the time.
const (
	gearWindow = time.Second
	gearSample = 10
)

func (o *Outbox) newGears(r *relay) *gears {
	g := &gears{pinned: o.config.Path, relay: r, listener: o.listener, free: o.config.MaxHalfMessages, told: HalfMessages, since: time.Now()}
	g.breaker = newBreaker(g.breakerChanged)
	if g.pinned == Relay {
		g.told = Relay
	}
	if g.pinned != Auto {
		g.listener.PathChanged(PathInfo{From: Auto, To: g.pinned, Why: WhyPinned})
	}
	return g
}

// take decides about a transaction with these events, which are on their way from then on. hot tells that others wait for
// its streams.
func (g *gears) take(events []rocketflow.Event, hot bool) *ticket {
	t := &ticket{gears: g, events: len(events), half: g.reserve(events, hot)}
	if !t.half {
		return t
	}
	if t.report, t.half = g.breaker.allow(); !t.half {
		t.report = nil
	}
	return t
}

func (g *gears) reserve(events []rocketflow.Event, hot bool) bool {
	underway, behind := g.relay.underway(events)
	n := len(events)
	g.mu.Lock()
	if g.broken {
		underway, behind = 0, false // what a broker that is away hasn't taken mustn't keep its probes from it
	}
	ok := g.pinned == HalfMessages || g.pinned == Auto && n <= g.free-underway && !behind && !hot
	g.free -= n
	switch {
	case ok:
		g.halves++
	case !hot: // a hot stream says nothing of the others
		g.relays++
	}
	from, to := g.told, g.told
	if now := time.Now(); g.pinned != Relay && now.Sub(g.since) >= gearWindow {
		all := g.halves + g.relays
		switch {
		case all >= gearSample && 3*g.relays > 2*all:
			g.busy = true
		case 3*g.relays < all:
			g.busy = false
		}
		g.since, g.halves, g.relays = now, 0, 0
		to = g.now()
		g.told = to
	}
	g.mu.Unlock()
	why := WhyFree
	if to == Relay {
		why = WhyBusy
	}
	g.tell(from, to, why)
	return ok
}

func (g *gears) release(events int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += events
}

func (g *gears) breakerChanged(open bool) {
	g.listener.BreakerChanged(open)
	g.mu.Lock()
	g.broken = open
	from, to := g.told, g.now()
	g.told = to
	g.mu.Unlock()
	why := WhyBreakerClosed
	if open {
		why = WhyBreakerOpen
	}
	g.tell(from, to, why)
}

// now is the gear that most transactions take. g.mu is held.
func (g *gears) now() Path {
	if g.broken || g.busy {
		return Relay
	}
	return HalfMessages
}

func (g *gears) tell(from, to Path, why string) {
	if from != to {
		g.listener.PathChanged(PathInfo{From: from, To: to, Why: why})
	}
}

// ticket is held by a transaction from the decision until it has committed, or, with half messages, until the broker has
// answered their ends.
type ticket struct {
	gears  *gears
	events int
	half   bool        // it takes half messages
	report func(error) // to the breaker; nil: nothing to report
}

// verdict reports what the broker did; the first one counts.
func (t *ticket) verdict(err error) {
	if t.report != nil {
		t.report(err)
		t.report = nil
	}
}

// keep tells whether a transaction that was to take half messages still does, now that its rows are recorded. contended
// tells that it has waited for others, which then wait for it.
func (t *ticket) keep(contended bool) bool {
	t.half = !contended || t.gears.pinned == HalfMessages
	return t.half
}

// close gives the events back. It must be called, whatever happens.
func (t *ticket) close() {
	t.verdict(errNoVerdict)
	t.gears.release(t.events)
}
