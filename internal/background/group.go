// Package background runs the goroutines of a part between its Start and its Stop. [Group] starts them and waits for them;
// [Loop] repeats work after a pause, at a signal, or when a test moves the clock.
package background

import (
	"context"
	"errors"
	"sync"
)

// Group owns the goroutines of a part that is started and stopped. It can be started again. The zero value is a stopped
// group. All methods are safe for concurrent use.
type Group struct {
	lifecycle sync.Mutex // held by a Start or a Stop from its beginning to its end

	mu      sync.Mutex // guards what follows; never held while a goroutine is waited for
	work    context.Context
	cancel  context.CancelFunc // nil while stopped
	running int                // goroutines, those that an earlier Stop has left included
	idle    chan struct{}      // closed when running becomes 0; nil: no Stop waits
}

// Start calls begin, which prepares the part and starts its goroutines with Go. begin gets the context of the goroutines,
// which has the values of ctx but not its end, and ends when Stop is called; begin uses ctx for its own waits. If begin fails,
// Start cancels that context, waits for the goroutines that were started, and returns the error. Starting a started group
// does nothing.
func (g *Group) Start(ctx context.Context, begin func(work context.Context) error) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
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

// Stop cancels the goroutines' context and waits until all have returned, or until ctx ends: then it returns ctx's error, and
// the goroutines end later. Stopping a stopped group waits for goroutines that an earlier Stop has left.
func (g *Group) Stop(ctx context.Context) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	g.end()
	return g.wait(ctx)
}

// StopAfter is Stop with a drain function, which it calls first, with ctx: the goroutines' context ends only when drain has
// returned, so that drain can wait for running work. Stopping a stopped group doesn't call drain.
func (g *Group) StopAfter(ctx context.Context, drain func(ctx context.Context) error) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
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
	select { // if both have ended, the group counts
	case <-done:
		return nil
	default:
		return context.Cause(ctx)
	}
}
