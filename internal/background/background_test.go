package background_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGroup(t *testing.T) {
	t.Parallel()
	var g background.Group
	if g.Go(func(context.Context) {}) || g.Running() {
		t.Error("the zero value runs")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	for range 3 {
		starting, started := context.WithCancel(t.Context())
		var ended atomic.Int32
		begun := 0
		begin := func(context.Context) error {
			begun++
			for range 2 {
				g.Go(func(work context.Context) { <-work.Done(); ended.Add(1) })
			}
			return nil
		}
		for range 2 {
			if err := g.Start(starting, begin); err != nil {
				t.Fatal(err)
			}
		}
		started() // the context of the start says nothing of the work
		if begun != 1 || !g.Running() || ended.Load() != 0 {
			t.Fatalf("begun %d times, running %v, %d ended", begun, g.Running(), ended.Load())
		}
		for range 2 {
			if err := g.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if ended.Load() != 2 || g.Running() {
			t.Fatalf("%d of 2 ended; running %v", ended.Load(), g.Running())
		}
	}
}

func TestGroupThatCantBegin(t *testing.T) {
	t.Parallel()
	var g background.Group
	var ended atomic.Bool
	no := errors.New("no")
	err := g.Start(t.Context(), func(context.Context) error {
		g.Go(func(work context.Context) { <-work.Done(); ended.Store(true) })
		return no
	})
	if !errors.Is(err, no) || !ended.Load() || g.Running() {
		t.Errorf("%v, ended %v, running %v", err, ended.Load(), g.Running())
	}
}

func TestStopAfterDraining(t *testing.T) {
	t.Parallel()
	var g background.Group
	var alive atomic.Bool
	no := errors.New("no")
	drained := 0
	drain := func(context.Context) error {
		if drained++; !alive.Load() {
			t.Error("drained after the end of the goroutines")
		}
		return no
	}
	if err := g.StopAfter(t.Context(), drain); err != nil || drained != 0 {
		t.Fatalf("a stopped group was drained %d times: %v", drained, err)
	}
	if err := g.Start(t.Context(), func(context.Context) error {
		alive.Store(true)
		g.Go(func(work context.Context) { <-work.Done(); alive.Store(false) })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := g.StopAfter(t.Context(), drain); !errors.Is(err, no) || drained != 1 || alive.Load() || g.Running() {
		t.Errorf("%v, drained %d times, alive %v, running %v", err, drained, alive.Load(), g.Running())
	}
}

func TestStopGivesUp(t *testing.T) {
	t.Parallel()
	var g background.Group
	release := make(chan struct{})
	if err := g.Start(t.Context(), func(context.Context) error {
		g.Go(func(context.Context) { <-release })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped beside a goroutine that runs: %v", err)
	}
	close(release)
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// A group can start again while goroutines that a Stop gave up on still run; a later Stop waits for them, too.
func TestStartAgainBesideWhatAStopLeft(t *testing.T) {
	t.Parallel()
	var g background.Group
	none := func(context.Context) error { return nil }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var running atomic.Int32
	release := make(chan struct{})
	for range 50 {
		if err := g.Start(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		running.Add(1)
		g.Go(func(context.Context) { <-release; running.Add(-1) })
		if err := g.Stop(ended); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped beside a goroutine that runs: %v", err)
		}
	}
	close(release)
	if err := g.Stop(t.Context()); err != nil || running.Load() != 0 {
		t.Errorf("%v, %d still run", err, running.Load())
	}
}

func TestGroupUnderStress(t *testing.T) {
	t.Parallel()
	var g background.Group
	var running atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 200 {
				if i%2 == 0 {
					_ = g.Start(t.Context(), func(context.Context) error { return nil })
				} else if err := g.Stop(t.Context()); err != nil {
					t.Error(err)
				}
				g.Go(func(work context.Context) {
					running.Add(1)
					defer running.Add(-1)
					<-work.Done()
				})
			}
		})
	}
	all.Wait()
	if err := g.Stop(t.Context()); err != nil || running.Load() != 0 {
		t.Errorf("%v, %d still run", err, running.Load())
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	c, wake := &clock.Virtual{}, make(chan struct{})
	looks := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	first := true
	done.Go(func() {
		background.Loop{Clock: c, Wake: wake}.Run(ctx, func(context.Context) time.Duration {
			looks <- struct{}{}
			if first { // again at once
				first = false
				return 0
			}
			return time.Hour
		})
	})
	<-looks
	<-looks
	wake <- struct{}{}
	<-looks
	for range 3 { // however early in the pause, or late in the work, the clock is moved
		c.Advance(time.Hour)
		<-looks
	}
	cancel()
	done.Wait()
}

// A clock that is moved while the work looks makes it look again.
func TestClockMovedDuringTheWork(t *testing.T) {
	t.Parallel()
	c := &clock.Virtual{}
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	background.Loop{Clock: c}.Every(ctx, time.Hour, func(context.Context) {
		if looks++; looks == 1 {
			c.Advance(time.Second)
			return
		}
		cancel()
	})
	if looks != 2 {
		t.Errorf("%d looks", looks)
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	c := &clock.Virtual{}
	if !background.Sleep(t.Context(), c, time.Millisecond) {
		t.Error("was not slept")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if background.Sleep(ctx, c, time.Hour) {
		t.Error("slept to the end")
	}
}
