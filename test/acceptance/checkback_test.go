package acceptance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// halfDeaf is a RocketMQ that takes half messages and nothing after them, as when the network fails at the worst moment:
// only its check-backs can send the events. Its responses to them arrive as usual.
type halfDeaf struct{ *rocketmq.Client }

func (halfDeaf) Send(context.Context, broker.Message) (broker.Receipt, error) {
	return broker.Receipt{}, broker.ErrUnavailable
}

func (halfDeaf) SendGroup(_ context.Context, ms []broker.Message) []error {
	return slices.Repeat([]error{broker.ErrUnavailable}, len(ms))
}

func (b halfDeaf) OpenTransactionProducer(ctx context.Context, group string, check broker.Checker) (broker.TransactionProducer, error) {
	t, err := b.Client.OpenTransactionProducer(ctx, group, check)
	return deafTransactor{t}, err
}

type deafTransactor struct{ broker.TransactionProducer }

// Commit fails in a way that the outbox doesn't take for an outage.
func (deafTransactor) Commit(context.Context, broker.Half) error { return broker.ErrRejected }

// checkLog records the decisions of an outbox.
type checkLog struct {
	mu      sync.Mutex
	commits map[uuid.UUID]int
	unknown int
}

func (l *checkLog) listener(t *testing.T) *outbox.Listener {
	l.commits = map[uuid.UUID]int{}
	return &outbox.Listener{
		Prepared: func(i outbox.PreparedInfo) {
			if i.Err != nil {
				t.Errorf("half message: %v", i.Err)
			}
		},
		Checked: func(i outbox.CheckedInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			switch i.Decision {
			case broker.Commit:
				l.commits[i.EventID]++
			case broker.Unknown:
				l.unknown++
			}
		},
	}
}

func (l *checkLog) unknowns() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown
}

func (l *checkLog) committed() (events, commits int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.commits {
		commits += n
	}
	return len(l.commits), commits
}

// orphans are fewer than the workers for checks, so that repeated check-backs are decided while the first ones wait.
const orphans = 20

// onlyChecks leaves the rescue to the check-back.
func onlyChecks(c *outbox.Config, l *outbox.Listener) {
	c.Path, c.SweepGrace, c.HalfTimeout, c.Listener = outbox.HalfMessages, time.Hour, 5*time.Second, l
}

// orphan publishes events that stay half messages.
func (s *service) orphan(box *outbox.Outbox) {
	s.t.Helper()
	var group errgroup.Group
	for i := range orphans {
		group.Go(func() error { return s.publish(box, event{fmt.Sprint("key-", i), 1, s.topic}) })
	}
	if err := group.Wait(); err != nil {
		s.t.Fatal(err)
	}
}

// awaitRounds returns when the broker has gone through all half messages some times more.
func (s *service) awaitRounds(rounds int) {
	s.t.Helper()
	checked := make(chan struct{}, 100)
	var mu sync.Mutex
	n := 0
	tr, err := s.client.OpenTransactionProducer(s.t.Context(), s.topic+"-rounds", func(context.Context, broker.Check) (broker.Decision, func(error)) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n < rounds {
			return broker.Unknown, nil
		}
		return broker.Rollback, func(error) { checked <- struct{}{} }
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer tr.Close(context.Background())
	if _, err := tr.Prepare(s.t.Context(), broker.Message{Topic: s.topic, Body: []byte("never seen")}); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-checked:
	case <-time.After(60 * time.Second):
		s.t.Fatal("the broker doesn't check")
	}
}

// wantOnce checks that the broker delivered each event once, and goes on to do so.
func (s *service) wantOnce(d *deliveries, l *checkLog) {
	s.t.Helper()
	poll.Within(s.t, 60*time.Second, "all are delivered", func() bool { events, _ := d.counted(); return events == orphans })
	s.awaitRounds(4)
	if events, deliveries := d.counted(); events != orphans || deliveries != orphans {
		s.t.Errorf("%d deliveries of %d events, want %d of as many", deliveries, events, orphans)
	}
	if events, commits := l.committed(); events != orphans || commits != orphans {
		s.t.Errorf("%d checks of %d events were decided with commit, want %d of as many", commits, events, orphans)
	}
	poll.Within(s.t, 10*time.Second, "all are written down as out", func() bool { return s.count("SELECT count(*) FROM outbox_ack") == orphans })
}

// TestSlowCheckBacksDeliverNoEventTwice makes Postgres respond slowly while the broker repeats its check-backs: the responses
// must not deliver an event twice.
func TestSlowCheckBacksDeliverNoEventTwice(t *testing.T) {
	t.Parallel()
	s := setup(t)
	seen := s.watch()
	var log checkLog
	box := s.outbox(func(c *outbox.Config) {
		c.Broker = halfDeaf{s.client}
		onlyChecks(c, log.listener(t))
	})
	lock, err := testdb.Open(t, s.pool.Config().ConnString(), s.schema).Begin(t.Context()) // not from the pool that waits for it
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback(context.Background())
	if _, err := lock.Exec(t.Context(), "LOCK TABLE outbox_ack IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	s.orphan(box) // doesn't need that table
	if events, _ := seen.counted(); events != 0 {
		t.Fatalf("%d events were sent before the broker checked", events)
	}
	begin := time.Now()
	poll.Within(t, 60*time.Second, "the broker has checked three times more while the first checks wait", func() bool { return log.unknowns() >= 3*orphans })
	if _, commits := log.committed(); commits != 0 {
		t.Fatalf("%d checks decided without the table", commits)
	}
	t.Logf("Postgres was slow for %v", time.Since(begin))
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantOnce(seen, &log)
}

// TestAProcessDecidesTheCheckBacksOfAnother checks that half messages that one process left are decided by another process
// of its group.
func TestAProcessDecidesTheCheckBacksOfAnother(t *testing.T) {
	t.Parallel()
	s := setup(t)
	seen := s.watch()
	var left, log checkLog
	first := s.outbox(func(c *outbox.Config) {
		c.Broker = halfDeaf{connect(t, s.nameServers)}
		onlyChecks(c, left.listener(t))
	})
	s.orphan(first)
	if err := first.Stop(bounded(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if events, _ := left.committed(); events != 0 {
		t.Fatalf("%d checks came before the first process ended", events)
	}
	s.outbox(func(c *outbox.Config) { onlyChecks(c, log.listener(t)) })
	s.wantOnce(seen, &log)
}
