// Package background runs what a part does between its Start and its Stop: goroutines that Stop waits for ([Group]), and
// work that is repeated after a pause, at a signal, or when a test moves the clock ([Loop]).
package background

import (
	"context"
	"errors"
	"sync"
)

// Group owns the goroutines of a part that is started and stopped, as often as wanted and by any goroutine. The zero
// value is a stopped group.
type Group struct {
	turn sync.Mutex // held by a Start or a Stop from its beginning to its end

	mu      sync.Mutex // guards what follows; never held while a goroutine is waited for
	work    context.Context
	cancel  context.CancelFunc // nil while stopped
	running int                // goroutines of this life and of former ones that a Stop left
	idle    chan struct{}      // closed when running becomes 0; nil: nobody waits
}

// Start calls begin, which prepares the part and starts its goroutines with Go. The context that begin gets is that of the
// goroutines: it keeps the values of ctx but not its end, and ends when Stop is called; use ctx for what the start itself
// waits for. If begin fails, Start ends that context, waits for the goroutines that were started, and returns the error.
// Starting a started group does nothing.
func (g *Group) Start(ctx context.Context, begin func(work context.Context) error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.Running() {
		return nil
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.mu.Lock()
	g.work, g.cancel = work, cancel
	g.mu.Unlock()
	if err := begin(work); err != nil {
		g.end()
		return errors.Join(err, g.wait(context.Background()))
	}
	return nil
}

// Running reports whether the group is started, or is starting.
func (g *Group) Running() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cancel != nil
}

// Go runs fn in a goroutine that Stop waits for, with the context that ends when Stop is called. It returns false, and
// doesn't run fn, when the group is stopped.
func (g *Group) Go(fn func(work context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel == nil {
		return false
	}
	work := g.work
	g.running++
	go func() {
		defer g.done()
		fn(work)
	}()
	return true
}

func (g *Group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.running == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// wait waits until no goroutine runs, or until ctx ends: then it returns ctx's error.
func (g *Group) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.running == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stop ends the goroutines' context and waits until all have returned, or until ctx ends: then it returns ctx's error, and
// the goroutines end later. Stopping a stopped group waits for what an earlier Stop left.
func (g *Group) Stop(ctx context.Context) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.end()
	return g.wait(ctx)
}

// StopAfter calls drain, which lets what is under way come to its end, and then does what Stop does. The goroutines' context
// lives until drain returns; its ctx is that of the call. Stopping a stopped group doesn't call drain.
func (g *Group) StopAfter(ctx context.Context, drain func(ctx context.Context) error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	var err error
	if g.Running() {
		err = drain(ctx)
	}
	g.end()
	return errors.Join(err, g.wait(ctx))
}

func (g *Group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel != nil {
		g.cancel()
		g.work, g.cancel = nil, nil
	}
}

// Wait waits for group, or until ctx ends: then it returns ctx's error.
func Wait(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select { // what has ended counts, even if ctx ended as well
	case <-done:
		return nil
	default:
		return context.Cause(ctx)
	}
}
