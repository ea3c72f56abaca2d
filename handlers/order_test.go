package handlers

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

func TestOrderUnderShuffleAndDuplicates(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		b := setup(t)
		b.broker.shuffle, b.broker.duplicate = true, 0.2
		const streams, length = 30, 15
		var all []rocketflow.Event
		want := map[string][]rocketflow.Event{}
		for i := range streams {
			events := newChain(subjectN(i)).next(length)
			want[subjectN(i)] = events
			all = append(all, events...)
		}
		for range 200 {
			all = append(all, loose("order.seen", "unordered"))
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for range processes {
			cfg := b.config()
			cfg.GapWait, cfg.MaxInFlight = 20*time.Millisecond, 64
			r := b.router(cfg)
			r.Handle("billing", topic, "order.changed", effect)
			r.Handle("billing", topic, "order.seen", effect)
			b.start(r)
		}
		b.broker.publish(all...)
		poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= len(all) })
		poll.Until(t, "all settled", func() bool { return b.broker.idle() && b.count("SELECT count(*) FROM parked") == 0 })
		for subject, events := range want {
			b.wantOrder(subject, events...)
		}
		if n := b.count("SELECT count(DISTINCT event) FROM effect WHERE subject = 'unordered'"); n != 200 || len(b.effects("unordered")) != 200 {
			t.Errorf("%d unordered events had %d effects, want 200", n, len(b.effects("unordered")))
		}
	}
}

// Retention deletes positions of which nothing was handled; the first events of streams run once each all the same.
func TestStreamsBeginBesideRetention(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broker.shuffle, b.broker.duplicate = true, 0.5
	var routers []*Router
	for range 2 {
		cfg := b.config()
		cfg.GapWait, cfg.MaxInFlight = 5*time.Millisecond, 64
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", effect)
		b.start(r)
		routers = append(routers, r)
	}
	stop := make(chan struct{})
	var retaining sync.WaitGroup
	for _, r := range routers {
		retaining.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := r.store.ExpirePositions(t.Context(), b.pool, b.schema, retentionMargin); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const streams, length = 150, 3
	want := map[string][]rocketflow.Event{}
	for i := range streams {
		events := newChain(subjectN(i)).next(length)
		want[subjectN(i)] = events
		b.broker.publish(events...)
	}
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= streams*length && b.broker.idle() })
	close(stop)
	retaining.Wait()
	for subject, events := range want {
		b.wantOrder(subject, events...)
	}
}

func TestGapFillsLater(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.GapWait, cfg.Listener = 10*time.Millisecond, p.listener()
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("a").next(5)
	b.broker.publish(events[0], events[2], events[4], events[3])
	poll.Until(t, "three are parked", func() bool { return b.parkedCount(Gap) == 3 })
	b.wantOrder("a", events[0])
	b.broker.publish(events[1])
	poll.Until(t, "the gap has filled", func() bool { return b.effectCount() == 5 })
	b.wantOrder("a", events...)
	if p.get("gap") == 0 {
		t.Error("no gap was reported")
	}
}

func TestGapInMemory(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.GapWait, cfg.Listener = 10*time.Second, p.listener()
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("a").next(3)
	other := newChain("b").next(1)
	b.broker.publish(events[2], events[1])
	poll.Until(t, "two wait", func() bool { return p.get("gap") == 2 })
	b.broker.publish(other...)
	b.broker.publish(events[0])
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 4 })
	b.wantOrder("a", events...)
	if n := p.get("parked gap"); n != 0 {
		t.Errorf("%d events were parked, want none", n)
	}
}

func TestGapRaceBetweenProcesses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broker.shuffle = true
	for range 2 {
		cfg := b.config()
		cfg.GapWait, cfg.MaxInFlight, cfg.BatchSize = -1, 16, 1
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", effect)
		b.start(r)
	}
	const streams = 100
	var pairs [][]rocketflow.Event
	for i := range streams {
		pairs = append(pairs, newChain(subjectN(i)).next(2))
		b.broker.publish(pairs[i]...)
	}
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 2*streams })
	for i, pair := range pairs {
		b.wantOrder(subjectN(i), pair...)
	}
}

// The process that handles an event wakes what another one has parked behind it, whenever that would have been looked at again.
func TestParkedFollowersAreWokenByAnotherProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := newChain("a").next(3)
	first := b.billing(effect)
	b.broker.publish(events[1:]...)
	poll.Until(t, "they are parked", func() bool { return b.parkedCount(Gap) == 2 && b.broker.idle() })
	b.stop(first)
	if _, err := b.pool.Exec(t.Context(), "UPDATE parked SET next_at = now() + interval '1 h'"); err != nil {
		t.Fatal(err)
	}
	b.billing(effect)
	b.broker.publish(events[0])
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 3 })
	b.wantOrder("a", events...)
}

func TestUnknownTypeIsSkipped(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("a").next(4)
	events[1].Type, events[2].Type = "order.viewed", "order.printed"
	b.broker.publish(events...)
	b.broker.publish(loose("order.viewed", "x"))
	poll.Until(t, "all settled", func() bool { return b.effectCount() == 2 && p.get("skipped") == 3 && b.broker.idle() })
	b.wantOrder("a", events[0], events[3])
}

func TestNewConsumerOnOldTopic(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.GapWait, cfg.Listener, cfg.PositionRetention = 10*time.Millisecond, p.listener(), 24*time.Hour
	cfg.AdoptAfter = 500 * time.Millisecond
	whole, cut, ancient := newChain("whole"), newChain("cut"), newChain("ancient")
	w := whole.at(time.Now().Add(-2*time.Hour), 2)
	c := cut.at(time.Now().Add(-2*time.Hour), 3)
	stray := c[0] // the broker seems to have forgotten the first
	c = c[1:]
	a := ancient.at(time.Now().Add(-48*time.Hour), 1)
	b.broker.publish(w...)
	b.broker.publish(c...)
	b.broker.publish(a...)
	r := b.router(cfg)
	r.Handle("late", topic, "order.changed", effect)
	b.start(r)
	poll.Until(t, "what can be handled is", func() bool { return b.effectCount() == 4 && p.get("dead") == 1 })
	b.wantOrder("whole", w...)
	b.wantOrder("cut", c...)
	b.wantOrder("ancient")

	// The first of the cut stream was on its way all the same. It is no duplicate, and nothing is lost in silence.
	b.broker.publish(stray)
	poll.Until(t, "it is a dead letter", func() bool { return b.parkedCount(DeadLetter) == 2 })
	after := cut.next(1)
	b.broker.publish(after...)
	b.broker.publish(c...) // these are
	poll.Until(t, "it holds back no event", func() bool { return b.effectCount() == 5 && b.broker.idle() })
	if n, err := b.operator.RetryDeadLetters(t.Context(), operate.ParkedFilter{EventID: stray.ID}); n != 1 || err != nil {
		t.Fatalf("retried %d: %v", n, err)
	}
	poll.Until(t, "it was handled", func() bool { return b.effectCount() == 6 && b.parkedCount(DeadLetter) == 1 })
}

func TestForkAfterFailover(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("a").next(3)
	fork := loose("order.changed", "a") // the publisher's new primary never saw the third
	fork.Previous, fork.Sequence = events[1].Sequence, events[2].Sequence+1000
	b.broker.publish(events...)
	poll.Until(t, "three ran", func() bool { return b.effectCount() == 3 })
	b.broker.publish(fork)
	poll.Until(t, "the fork ran", func() bool { return b.effectCount() == 4 })
	b.wantOrder("a", append(events, fork)...)
}
