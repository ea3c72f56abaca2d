package outbox

import (
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// Path is how the events of a transaction reach the broker: by half messages or by the relay.
type Path int

const (
	// Auto takes the half-message path while little is in flight, and the relay path otherwise. Each transaction decides
	// for all its events, before it commits. If the broker has no half messages it is Relay.
	Auto Path = iota
	// HalfMessages stores a half message for each event before the commit, however many are in flight. It has the lowest
	// latency. While the broker is away, and in joined transactions, events take the relay path all the same.
	HalfMessages
	// Relay sends events in groups after the commit. It has the highest throughput.
	Relay
)

// String returns the path's name in lower case.
func (p Path) String() string {
	switch p {
	case Auto:
		return "auto"
	case HalfMessages:
		return "half messages"
	case Relay:
		return "relay"
	}
	return "unknown"
}

// PathReason says why most transactions of a process take another path than before.
type PathReason string

// The reasons of Listener.PathChanged.
const (
	PathPinned        PathReason = "pinned"         // by Config.Path, at the start
	PathBusy          PathReason = "busy"           // most transactions find the capacity in flight used up
	PathFree          PathReason = "free"           // most transactions find capacity again
	PathBreakerOpen   PathReason = "breaker open"   // the broker fails or is late
	PathBreakerClosed PathReason = "breaker closed" // the broker responds again
)

// pathSelector chooses the path of each publication, without ever waiting. It chooses half messages while few events are in
// flight (in commits or in requests to the broker) on either path; so a busy process takes the relay path for all events,
// which costs the broker less than some half messages beside it. Events that wait in the relay are not in flight, but no
// event may overtake one of its stream there. The exception is a publication that probes a broker that was away: consumers
// hold its events until the earlier ones come.
type pathSelector struct {
	pinned   Path
	breaker  *breaker
	relay    *relay
	listener *Listener

	mu          sync.Mutex // taken under the breaker's own, never the other way around
	capacity    int        // how many more events may be reserved, without the relay's; below 0: too many are
	breakerOpen bool       // or probing
	busy        bool
	reported    Path // to the listener
	// The window in which the choices are counted that decide whether the process is busy.
	windowBegan time.Time
	choseHalf   int // publications
	choseRelay  int // publications that found no capacity
}

// A process counts as busy, or as no longer busy, by the choices in a window with a minimum number of them, because single
// publications take either path all the time.
const (
	pathWindow = time.Second
	pathSample = 10
)

func (o *Outbox) newPathSelector(pinned Path, r *relay) *pathSelector {
	s := &pathSelector{pinned: pinned, relay: r, listener: o.listener, capacity: o.config.MaxHalfMessages, reported: HalfMessages, windowBegan: time.Now()}
	s.breaker = newBreaker(s.breakerChanged)
	if s.pinned == Relay {
		s.reported = Relay
	}
	if s.pinned != Auto {
		s.listener.PathChanged(PathInfo{From: Auto, To: s.pinned, Reason: PathPinned})
	}
	return s
}

// reserve chooses the path of a publication with these events, which are in flight until the reservation is released. hot
// reports that other transactions wait for its streams.
func (s *pathSelector) reserve(events []rocketflow.Event, hot bool) *reservation {
	r := &reservation{paths: s, events: len(events), half: s.choose(events, hot)}
	if r.half {
		r.outcome, r.half = s.breaker.allow()
	}
	return r
}

// choose takes the capacity and reports whether the publication can take half messages.
func (s *pathSelector) choose(events []rocketflow.Event, hot bool) bool {
	inFlight, behind := s.relay.inFlight(events)
	n := len(events)
	s.mu.Lock()
	if s.breakerOpen {
		inFlight, behind = 0, false // events that wait because the broker was away must not prevent the probe
	}
	half := s.pinned == HalfMessages || s.pinned == Auto && n <= s.capacity-inFlight && !behind && !hot
	s.capacity -= n
	switch {
	case half:
		s.choseHalf++
	case !hot: // a hot stream says nothing of the others
		s.choseRelay++
	}
	from, to := s.reported, s.reported
	if now := time.Now(); s.pinned != Relay && now.Sub(s.windowBegan) >= pathWindow {
		all := s.choseHalf + s.choseRelay
		switch {
		case all >= pathSample && 3*s.choseRelay > 2*all:
			s.busy = true
		case 3*s.choseRelay < all:
			s.busy = false
		}
		s.windowBegan, s.choseHalf, s.choseRelay = now, 0, 0
		to = s.usual()
		s.reported = to
	}
	s.mu.Unlock()
	reason := PathFree
	if to == Relay {
		reason = PathBusy
	}
	s.reportChange(from, to, reason)
	return half
}

func (s *pathSelector) release(events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity += events
}

func (s *pathSelector) breakerChanged(open bool) {
	s.listener.BreakerChanged(open)
	s.mu.Lock()
	s.breakerOpen = open
	from, to := s.reported, s.usual()
	s.reported = to
	s.mu.Unlock()
	reason := PathBreakerClosed
	if open {
		reason = PathBreakerOpen
	}
	s.reportChange(from, to, reason)
}

// usual is the path that most publications take; called with mu held.
func (s *pathSelector) usual() Path {
	if s.breakerOpen || s.busy {
		return Relay
	}
	return HalfMessages
}

func (s *pathSelector) reportChange(from, to Path, reason PathReason) {
	if from != to {
		s.listener.PathChanged(PathInfo{From: from, To: to, Reason: reason})
	}
}

// reservation is one publication's share of the in-flight capacity. It is held until the transaction has committed or, with
// half messages, until the broker has confirmed their ends.
type reservation struct {
	paths   *pathSelector
	events  int
	half    bool        // the publication takes half messages
	outcome func(error) // reports to the breaker; nil: nothing to report, or reported
}

// report reports to the breaker whether the broker worked; the first report counts.
func (r *reservation) report(err error) {
	if r.outcome != nil {
		r.outcome(err)
		r.outcome = nil
	}
}

// keepHalf reports whether a publication for which half messages were chosen still uses them, now that its rows are
// recorded. contended reports that its transaction has waited for others; then others probably wait for it.
func (r *reservation) keepHalf(contended bool) bool {
	r.half = !contended || r.paths.pinned == HalfMessages
	return r.half
}

// release gives the capacity back. It must be called once, whatever happens.
func (r *reservation) release() {
	r.report(errInconclusive)
	r.paths.release(r.events)
}
