package outbox_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// journal records what a listener was called with about paths.
type journal struct {
	mu    sync.Mutex
	paths []outbox.PathInfo
	slow  []time.Duration // half messages that failed
}

func (j *journal) listener() *outbox.Listener {
	return &outbox.Listener{
		PathChanged: func(i outbox.PathInfo) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.paths = append(j.paths, i)
		},
		Prepared: func(i outbox.PreparedInfo) {
			if i.Err != nil {
				j.mu.Lock()
				defer j.mu.Unlock()
				j.slow = append(j.slow, i.Took)
			}
		},
	}
}

func (j *journal) changes() []outbox.PathInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.paths)
}

func (j *journal) waits() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.slow)
}

// While the broker does not respond, so many transactions as half messages may be in flight wait for it, once, and a probe
// now and then. When it is back half messages are used again.
func TestBreakerBoundsWaitingForTheBroker(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	j := &journal{}
	const halves, callers = 4, 16
	b := setup(t, func(c *outbox.Config) { c.MaxHalfMessages, c.Listener = halves, j.listener() })
	b.broker.mu.Lock()
	b.broker.hang["prepare"] = true
	b.broker.mu.Unlock()

	publish := func(each int) {
		t.Helper()
		var group errgroup.Group
		for i := range callers {
			group.Go(func() error {
				for range each {
					if err := b.credit(ctx, fmt.Sprint(i), 1); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	publish(20)
	// A breaker that learns: at most two failures before the one that opens it, and what was in flight then.
	if n := j.waits(); n < 3 || n > halves+2 {
		t.Errorf("%d transactions waited in vain, want 3 to %d", n, halves+2)
	}
	want := []outbox.PathInfo{{From: outbox.HalfMessages, To: outbox.Relay, Reason: outbox.PathBreakerOpen}}
	if got := j.changes(); !slices.Equal(got, want) {
		t.Errorf("listener got %v, want %v", got, want)
	}

	b.broker.mu.Lock()
	clear(b.broker.hang)
	b.broker.mu.Unlock()
	sent := callers * 20
	poll.Until(t, "half messages again", func() bool {
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		sent++
		return len(j.changes()) == 2
	})
	got := j.changes()[1]
	if got.Reason == outbox.PathFree { // a slow machine took so long that it counts as busy
		got.Reason = outbox.PathBreakerClosed
	}
	if got != (outbox.PathInfo{From: outbox.Relay, To: outbox.HalfMessages, Reason: outbox.PathBreakerClosed}) {
		t.Errorf("then the listener got %v", got)
	}
	poll.Until(t, "all events", func() bool { return len(b.broker.events()) == sent })
	// Half messages that probe may overtake what the relay holds of a. The others were sent while the breaker was open.
	events := b.broker.events()
	slices.SortStableFunc(events, func(x, y rocketflow.Event) int {
		if x.Subject == "a" && y.Subject == "a" {
			return cmp.Compare(x.Sequence, y.Sequence)
		}
		return strings.Compare(x.Subject, y.Subject)
	})
	chain(t, events)
}

// A broker that rejects events is not away.
func TestRejectionsDontOpenTheBreaker(t *testing.T) {
	t.Parallel()
	j := &journal{}
	b := setup(t, func(c *outbox.Config) { c.Path, c.Listener = outbox.HalfMessages, j.listener() })
	b.broker.set("prepare", broker.ErrTopicNotFound)
	for range 30 {
		if err := b.credit(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := j.waits(); n != 30 || len(j.changes()) != 1 { // that it is pinned
		t.Errorf("%d half messages were tried, listener got %v", n, j.changes())
	}
}

// A broker that is known to be away fails at once, with the error of the heartbeat that took too long.
func TestFailuresAtOnceOpenTheBreaker(t *testing.T) {
	t.Parallel()
	for name, cause := range map[string]error{"deadline": context.DeadlineExceeded, "cancel": context.Canceled, "other": errors.New("connection refused")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &journal{}
			b := setup(t, func(c *outbox.Config) { c.Path, c.Listener = outbox.HalfMessages, j.listener() })
			b.broker.set("prepare", fmt.Errorf("heartbeat: %w: %w", broker.ErrUnavailable, cause))
			for range 10 {
				if err := b.credit(t.Context(), "a", 1); err != nil {
					t.Fatal(err)
				}
			}
			if n := j.waits(); n < 3 || n > 5 { // a slow machine takes so long that there are two probes
				t.Errorf("%d half messages were tried, want 3", n)
			}
		})
	}
}

// A caller whose own context ends says nothing about the broker: after as many of them as would open the breaker, half messages are
// still tried.
func TestCallersContextsDontOpenTheBreaker(t *testing.T) {
	t.Parallel()
	j := &journal{}
	b := setup(t, func(c *outbox.Config) {
		c.Path, c.HalfTimeout, c.SweepGrace, c.Listener = outbox.HalfMessages, 20*time.Second, 40*time.Second, j.listener()
	})
	b.broker.mu.Lock()
	b.broker.hang["prepare"] = true
	b.broker.mu.Unlock()
	credit := func(account string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second) // half of it is for the half message
		defer cancel()
		return b.credit(ctx, account, 1)
	}
	var callers errgroup.Group
	for i := range 4 {
		callers.Go(func() error { return credit(fmt.Sprint(i)) })
	}
	if err := callers.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := credit("last"); err != nil {
		t.Fatal(err)
	}
	if n := j.waits(); n != 5 {
		t.Errorf("%d half messages were tried, want 5", n)
	}
}

// A caller with a short deadline gets its commit, though the broker is late.
func TestShortDeadlineLeavesTimeToCommit(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) { c.HalfTimeout, c.SweepGrace = 10*time.Second, 20*time.Second })
	b.broker.mu.Lock()
	b.broker.hang["prepare"] = true
	b.broker.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event", func() bool { return len(b.broker.events()) == 1 })
}

// Under load most transactions take the relay path, else the half-message path; the listener is called when that changes, not each time.
func TestPathFollowsLoad(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := &journal{}
	b := setup(t, func(c *outbox.Config) { c.MaxHalfMessages, c.Listener = 1, j.listener() })
	var stop atomic.Bool
	var group errgroup.Group
	var published atomic.Int64
	for range 8 {
		group.Go(func() error {
			for !stop.Load() {
				// One stream after the other: what follows closely in a stream is hot, and says nothing of the load.
				if err := b.credit(ctx, fmt.Sprint(published.Add(1)), 1); err != nil {
					return err
				}
			}
			return nil
		})
	}
	slowly := func(m broker.Message) { time.Sleep(10 * time.Millisecond) } // so long is the one half message in use
	b.broker.mu.Lock()
	b.broker.preparing = slowly
	b.broker.mu.Unlock()
	poll.Until(t, "busy", func() bool { return len(j.changes()) == 1 })
	stop.Store(true)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "free", func() bool {
		published.Add(1)
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		return len(j.changes()) == 2
	})
	want := []outbox.PathInfo{{From: outbox.HalfMessages, To: outbox.Relay, Reason: outbox.PathBusy}, {From: outbox.Relay, To: outbox.HalfMessages, Reason: outbox.PathFree}}
	if got := j.changes(); !slices.Equal(got, want) {
		t.Errorf("listener got %v, want %v", got, want)
	}
	poll.Until(t, "all events", func() bool { return int64(len(b.broker.events())) == published.Load() })
}

// What the relay holds counts, so that a busy process goes by the relay altogether, and no event overtakes one of its
// stream.
func TestRelayedEventsCountAsInFlight(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var halves atomic.Int64
	b := setup(t, func(c *outbox.Config) {
		c.MaxHalfMessages, c.SweepGrace = 4, time.Hour
		c.Listener = &outbox.Listener{Prepared: func(i outbox.PreparedInfo) {
			if i.Err == nil {
				halves.Add(1)
			}
		}}
	})
	hold := make(chan struct{})
	b.broker.mu.Lock()
	b.broker.hold = hold
	b.broker.mu.Unlock()
	publish := func(want int64, accounts ...string) {
		t.Helper()
		before := halves.Load()
		if err := b.publish(ctx, len(accounts), accounts...); err != nil {
			t.Fatal(err)
		}
		if n := halves.Load() - before; n != want {
			t.Errorf("%q: %d half messages, want %d", accounts, n, want)
		}
	}
	b.broker.set("prepare", broker.ErrUnavailable)
	publish(0, "a") // and on to the relay
	b.broker.set("prepare", nil)
	publish(3, "b", "c", "d")
	publish(0, "b", "c", "d", "e") // one too many
	publish(0, "f")                // the relay holds five
	close(hold)
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 9 })

	hold = make(chan struct{})
	b.broker.mu.Lock()
	b.broker.hold = hold
	b.broker.mu.Unlock()
	b.broker.set("prepare", broker.ErrUnavailable)
	publish(0, "a")
	b.broker.set("prepare", nil)
	publish(0, "a") // not ahead of the other
	publish(1, "b")
	close(hold)
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 12 })
	chain(t, b.broker.events())
}

func TestConfigPinsThePath(t *testing.T) {
	t.Parallel()
	for path, halves := range map[outbox.Path]int{outbox.Auto: 0, outbox.HalfMessages: 6, outbox.Relay: 0} {
		t.Run(path.String(), func(t *testing.T) {
			t.Parallel()
			var prepared atomic.Int64
			j := &journal{}
			b := setup(t, func(c *outbox.Config) {
				c.Path, c.MaxHalfMessages = path, 5
				c.Listener = outbox.Tee(j.listener(), &outbox.Listener{Prepared: func(outbox.PreparedInfo) { prepared.Add(1) }})
			})
			// All events of a transaction go one way.
			err := b.outbox.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
				for i := range 6 {
					if err := tx.Publish(ctx, credited{"a", int64(i)}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := prepared.Load(); n != int64(halves) {
				t.Errorf("%d half messages, want %d", n, halves)
			}
			if got := j.changes(); path != outbox.Auto && (len(got) != 1 || got[0] != outbox.PathInfo{To: path, Reason: outbox.PathPinned}) {
				t.Errorf("listener got %v", got)
			}
			poll.Until(t, "events", func() bool { return len(b.broker.events()) == 6 })
			chain(t, b.broker.events())
		})
	}
}
