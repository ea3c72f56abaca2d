package timeout

import (
	"sync"
	"time"
)

// nextSweep is when this process sweeps next, by Config.Clock.
type nextSweep struct {
	wake chan struct{} // gets a value when the time was moved ahead; its capacity is 1

	mu       sync.Mutex
	at       time.Time
	earliest time.Time // no sweep begins before this time, even if a timeout comes due
}

// due returns 0 if a sweep is to begin at now, and plans the following one; otherwise it returns the time until the sweep.
func (n *nextSweep) due(now time.Time, interval time.Duration) (rest time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rest := n.at.Sub(now); rest > 0 {
		return rest
	}
	n.earliest = now.Add(min(minSweepPause, interval))
	n.at = now.Add(interval)
	return 0
}

// rest returns the time until the next sweep.
func (n *nextSweep) rest(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at.Sub(now)
}

// by moves the next sweep ahead to t, if it would begin later.
func (n *nextSweep) by(t time.Time) {
	n.mu.Lock()
	if t.Before(n.earliest) {
		t = n.earliest
	}
	ahead := t.Before(n.at)
	if ahead {
		n.at = t
	}
	n.mu.Unlock()
	if !ahead {
		return
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// now plans the next sweep at once.
func (n *nextSweep) now() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at, n.earliest = time.Time{}, time.Time{}
}

// notBefore moves the next sweep back to t, whatever comes due until then.
func (n *nextSweep) notBefore(t time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at, n.earliest = t, t
}
