// Package clock has the machine's clock and one that tests move. Both are a rocketflow.Clock.
package clock

import (
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// System is the machine's clock.
type System struct{}

// Now is time.Now.
func (System) Now() time.Time { return time.Now() }

// After is a timer.
func (System) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Virtual is the machine's clock plus an offset that only grows. The zero value is ready.
type Virtual struct {
	mu     sync.Mutex
	offset time.Duration
	waits  map[*wait]struct{}
	moved  chan struct{} // closed by the next Advance; nil: nobody asked
}

type wait struct {
	due   time.Time
	fired chan time.Time
	timer *time.Timer
}

// Now is the machine's time plus the offset.
func (v *Virtual) Now() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now()
}

func (v *Virtual) now() time.Time { return time.Now().Add(v.offset) }

// Offset is how far the clock is ahead of the machine's.
func (v *Virtual) Offset() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.offset
}

// After returns a channel that gets the time once d has passed on this clock, and a func that gives up waiting.
func (v *Virtual) After(d time.Duration) (<-chan time.Time, func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := &wait{due: v.now().Add(d), fired: make(chan time.Time, 1)}
	if v.waits == nil {
		v.waits = map[*wait]struct{}{}
	}
	v.waits[w] = struct{}{}
	w.timer = time.AfterFunc(d, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.fire(w)
	})
	return w.fired, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		w.timer.Stop()
		delete(v.waits, w)
	}
}

// Advance moves the clock ahead by d and fires what that makes due, in no order. A negative d panics: no one who uses a
// clock expects it to go back.
func (v *Virtual) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: advance by " + d.String())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offset += d
	if v.moved != nil {
		close(v.moved)
		v.moved = nil
	}
	now := v.now()
	for w := range v.waits {
		if rest := w.due.Sub(now); rest > 0 {
			w.timer.Reset(rest)
		} else {
			w.timer.Stop()
			v.fire(w)
		}
	}
}

func (v *Virtual) fire(w *wait) {
	if _, waiting := v.waits[w]; waiting {
		delete(v.waits, w)
		w.fired <- v.now()
	}
}

// Moved is for the func of this name.
func (v *Virtual) Moved() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.moved == nil {
		v.moved = make(chan struct{})
	}
	return v.moved
}

// Moved returns a channel that is closed when c is moved next, or nil if nobody moves it. Who looks what is due and
// rests until then asks before the look: should the clock be moved meanwhile, what was seen is past and so is the rest.
func Moved(c rocketflow.Clock) <-chan struct{} {
	if v, ok := c.(interface{ Moved() <-chan struct{} }); ok {
		return v.Moved()
	}
	return nil
}
