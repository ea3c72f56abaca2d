// Package clock has two implementations of rocketflow.Clock: [System], the machine's clock, and [Virtual], which tests move.
package clock

import (
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// System is the clock of the machine.
type System struct{}

// Now returns time.Now.
func (System) Now() time.Time { return time.Now() }

// After returns a channel that gets the time once d has passed, and a function that stops the timer.
func (System) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// IsInstant reports whether t is in the years 1 to 9999 UTC, which RFC 3339, JSON and Postgres can all express. A time from outside that isn't
// is no time.
func IsInstant(t time.Time) bool { return t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 }

// Virtual is the clock of the machine plus an offset that tests increase. The zero value is ready to use. All methods are safe
// for concurrent use.
type Virtual struct {
	mu     sync.Mutex
	offset time.Duration
	waits  map[*wait]struct{}
	moved  chan struct{} // closed by the next Advance; nil until Moved is called
}

// wait is a call of After that is not due yet.
type wait struct {
	due   time.Time
	fired chan time.Time
	timer *time.Timer
}

// Now returns the machine's time plus the offset.
func (v *Virtual) Now() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now()
}

func (v *Virtual) now() time.Time { return time.Now().Add(v.offset) }

// Offset returns how far the clock is ahead of the machine's.
func (v *Virtual) Offset() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.offset
}

// After returns a channel that gets the time once d has passed on this clock, and a function that stops the wait.
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

// Advance moves the clock ahead by d. The waits that have become due end in no particular order. Advance panics if d is
// negative, because no user of a clock expects it to go back.
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

// fire ends a wait, unless it was stopped. v.mu is held.
func (v *Virtual) fire(w *wait) {
	if _, waiting := v.waits[w]; waiting {
		delete(v.waits, w)
		w.fired <- v.now()
	}
}

// Moved returns a channel that is closed by the next Advance. Callers use the function Moved.
func (v *Virtual) Moved() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.moved == nil {
		v.moved = make(chan struct{})
	}
	return v.moved
}

// Moved returns a channel that is closed when c is moved the next time, or nil if c can't be moved. Code that reads what is due
// and then pauses must call Moved before it reads: if the clock is moved in between, what it read is out of date, and the
// closed channel ends the pause.
func Moved(c rocketflow.Clock) <-chan struct{} {
	if v, ok := c.(interface{ Moved() <-chan struct{} }); ok {
		return v.Moved()
	}
	return nil
}
