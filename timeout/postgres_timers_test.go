package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// latenesses collects how late timeouts fire.
type latenesses struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latenesses) add(i timeout.Info) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, i.Late)
}

func (l *latenesses) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// quantile returns the lateness that a share of the timeouts doesn't exceed.
func (l *latenesses) quantile(share float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[min(len(l.all)-1, int(share*float64(len(l.all))))]
}

// typed is a broker whose topics of one name take no timers.
type typed struct {
	*fakeBroker
	topic string
	err   error

	mu        sync.Mutex
	rejected  int
	exceptFor string // the subject of events whose timers are taken
}

func (b *typed) Schedule(ctx context.Context, m broker.Message, at time.Time) (broker.Timer, error) {
	if m.Topic == b.topic && m.Properties["CE_subject"] != b.exceptFor {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.rejected++
		return broker.Timer{}, b.err
	}
	return b.fakeBroker.Schedule(ctx, m, at)
}

func (b *typed) rejections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rejected
}

// note is an event of any topic.
type note struct{ topic, key string }

func (n note) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: n.topic, Type: "note", Subject: n.key}
}

func (b *bundle) armNote(t *testing.T, topic, key string, in time.Duration) {
	t.Helper()
	err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
		return b.Arm(t.Context(), tx, key, "note", time.Now().Add(in), note{topic, key})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A broker without timers, and a configuration that uses none: the events are sent when they are due, once each.
func TestTimeoutsFireFromPostgres(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*timeout.Config, *fakeBroker){
		"broker without timers": func(_ *timeout.Config, m *fakeBroker) { m.horizon = 0 },
		"timers of Postgres":    func(c *timeout.Config, _ *fakeBroker) { c.Timers = timeout.PostgresTimers },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var late, handedOver latenesses
			b := setup(t, func(c *timeout.Config, m *fakeBroker) {
				change(c, m)
				c.SweepInterval, c.SweepGrace, c.RetryInterval = time.Second, 20*time.Second, 30*time.Second
				c.Listener.Fired, c.Listener.HandedOver = late.add, handedOver.add
				c.Listener.Recovered = func(i timeout.Info) { t.Errorf("counts as recovered: %+v", i) }
				c.Listener.TooEarly = func(i timeout.Info) { t.Errorf("sent too early: %+v", i) }
			}).start(t)
			const timeouts = 150
			due := map[string]time.Time{}
			for n := range timeouts {
				key := uuid.NewString()
				in := time.Duration(n*17) * time.Millisecond
				due[key] = time.Now().Add(in)
				b.arm(t, key, in)
				if n%3 == 1 {
					if b.disarm(t, key) {
						delete(due, key)
					}
				}
			}
			for n := len(due); n > 0; n-- {
				e := b.waitFired(t)
				if at, ok := due[e.Subject]; !ok || time.Now().Before(at) {
					t.Errorf("%s fired twice, early, or after it was disarmed", e.Subject)
				}
				delete(due, e.Subject)
			}
			if scheduled, sent := b.broker.counts(); scheduled != 0 || sent > timeouts {
				t.Errorf("%d timers and %d messages", scheduled, sent)
			}
			if n := b.count(t, "true"); n != 0 {
				t.Errorf("%d rows left", n)
			}
			if p50 := late.quantile(0.5); p50 > 500*time.Millisecond {
				t.Errorf("half of them were later than %v", p50)
			}
			poll.Until(t, "all are reported as handed over", func() bool { return handedOver.count() >= late.count() })
			t.Logf("late: p50 %v, p99 %v, max %v", late.quantile(0.5), late.quantile(0.99), late.quantile(1))
		})
	}
}

// The broker rejects the timers of a topic. Its timeouts fire from Postgres when they are due, and no more timers are
// requested for it; those of another topic are handed over.
func TestRejectedTimersFireFromPostgres(t *testing.T) {
	t.Parallel()
	var late latenesses
	var picky *typed
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		picky = &typed{fakeBroker: m, topic: "fifo", err: fmt.Errorf("the topic's type is FIFO: %w", broker.ErrIllegal)}
		c.Broker, c.SweepInterval, c.SweepGrace, c.Listener.Fired = picky, time.Second, 20*time.Second, late.add
	}).start(t)
	b.armNote(t, "fifo", "first", 500*time.Millisecond)
	poll.Until(t, "the timer is rejected", func() bool { return picky.rejections() == 1 })
	for n := range 20 {
		b.armNote(t, "fifo", fmt.Sprint(n), 3*time.Second) // time enough to move the half of them before
	}
	b.armNote(t, "delay", "other", 500*time.Millisecond)
	for n := range 10 {
		if err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
			_, err := b.Move(t.Context(), tx, fmt.Sprint(n), "note", time.Now().Add(700*time.Millisecond))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 22 {
		b.waitFired(t)
	}
	if n := picky.rejections(); n != 1 {
		t.Errorf("%d timers were requested for the topic", n)
	}
	if scheduled, sent := b.broker.counts(); scheduled != 1 || sent != 21 {
		t.Errorf("%d timers and %d messages, want 1 and 21", scheduled, sent)
	}
	if p75 := late.quantile(0.75); p75 > time.Second {
		t.Errorf("a quarter of them was later than %v", p75)
	}
}

// The switched-off timers of a broker are noticed once, for all topics.
func TestBrokerWithItsTimersSwitchedOff(t *testing.T) {
	t.Parallel()
	var picky *typed
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		picky = &typed{fakeBroker: m, topic: "a", err: broker.ErrNoTimers}
		c.Broker, c.SweepGrace = picky, 20*time.Second
	}).start(t)
	b.armNote(t, "a", "first", 200*time.Millisecond)
	poll.Until(t, "the timer is rejected", func() bool { return picky.rejections() == 1 })
	b.armNote(t, "b", "second", 200*time.Millisecond)
	b.waitFired(t)
	b.waitFired(t)
	if scheduled, sent := b.broker.counts(); scheduled != 0 || sent != 2 {
		t.Errorf("%d timers and %d messages, want 0 and 2", scheduled, sent)
	}
}

// The rejection of one message says nothing about others.
func TestTimerTooLargeForTheBroker(t *testing.T) {
	t.Parallel()
	var picky *typed
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		picky = &typed{fakeBroker: m, topic: "a", err: broker.ErrTooLarge, exceptFor: "small"}
		c.Broker, c.SweepGrace = picky, 20*time.Second
	}).start(t)
	b.armNote(t, "a", "large", 200*time.Millisecond)
	poll.Until(t, "the timer is rejected", func() bool { return picky.rejections() == 1 })
	b.armNote(t, "a", "small", 200*time.Millisecond)
	b.waitFired(t)
	b.waitFired(t)
	if scheduled, sent := b.broker.counts(); scheduled != 1 || sent != 1 {
		t.Errorf("%d timers and %d messages, want 1 and 1", scheduled, sent)
	}
}

// The sweep hands over, is rejected, and lets the timeout fire from Postgres.
func TestRejectionByTheSweep(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		c.Broker = &typed{fakeBroker: m, topic: "fifo", err: broker.ErrIllegal}
		c.SweepInterval, c.SweepGrace, c.RetryInterval = time.Second, 300*time.Millisecond, time.Minute
	})
	b.armNote(t, "fifo", "o1", 1500*time.Millisecond) // the process dies before the hand-over
	due := time.Now().Add(1500 * time.Millisecond)
	poll.Until(t, "the grace has passed", func() bool { return b.count(t, "next_sweep_at <= clock_timestamp()") == 1 })
	b.start(t)
	poll.Until(t, "the rejection is recorded", func() bool { return b.count(t, "next_sweep_at = due_at") == 1 })
	b.waitFired(t)
	if late := time.Since(due); late > 900*time.Millisecond {
		t.Errorf("fired %v late", late)
	}
}

// A consumer that is away finds few copies: one at the due time, one after the grace, and then ever fewer.
func TestPausesBetweenSendsFromPostgres(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	b := setupIn(t, pool, schema, func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.Clock, c.SweepInterval, c.SweepGrace, c.RetryInterval = clock, time.Hour, 5*time.Second, 30*time.Second
	})
	b.broker.handler = nil
	b.start(t)
	if err := within(t.Context(), pool, func(tx rocketflow.Tx) error {
		return b.Arm(t.Context(), tx, "o1", "payment", clock.Now().Add(30*24*time.Hour), closeOrder{"o1"})
	}); err != nil {
		t.Fatal(err)
	}
	clock.FastForward(30*24*time.Hour - time.Minute)
	if n := b.count(t, "next_sweep_at = due_at"); n != 1 {
		t.Error("swept before it is due")
	}
	clock.FastForward(time.Minute)
	for n, want := range []time.Duration{5 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute} {
		poll.Until(t, "it is sent", func() bool { return b.count(t, fmt.Sprintf("sends = %d", n+1)) == 1 })
		var pause time.Duration
		if err := pool.QueryRow(t.Context(), "SELECT next_sweep_at - now() FROM timeout").Scan(&pause); err != nil {
			t.Fatal(err)
		}
		if pause > want || pause < want-4*time.Second {
			t.Errorf("after %d sends: a pause of %v, want %v", n+1, pause, want)
		}
		clock.FastForward(want)
	}
}

// Any horizon: a timeout fires soon after the clock was moved to its due time, and no moment before.
func TestTimersOfPostgresFollowTheClock(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	fired := make(chan timeout.Info, 10)
	b := setupIn(t, pool, schema, func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.Clock, c.SweepInterval, c.SweepGrace = clock, time.Hour, 5*time.Second
		c.Listener.Fired = func(i timeout.Info) { fired <- i }
	}).start(t)
	for _, in := range []time.Duration{time.Minute, 36 * time.Hour, 400 * 24 * time.Hour} {
		if err := within(t.Context(), pool, func(tx rocketflow.Tx) error {
			return b.Arm(t.Context(), tx, in.String(), "payment", clock.Now().Add(in), closeOrder{in.String()})
		}); err != nil {
			t.Fatal(err)
		}
		clock.FastForward(in - 3*time.Second)
		if n := b.count(t, "sends = 0"); n != 1 {
			t.Errorf("%v: sent early", in)
		}
		clock.FastForward(3 * time.Second)
		select {
		case i := <-fired:
			if i.Key != in.String() || i.Late < 0 {
				t.Errorf("got %+v", i)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%v: not soon", in)
		}
	}
}

// A process arms, and another one holds the lease. The event is sent on time whether the arming process runs a scheduler or not.
func TestTimeoutsOfOtherProcesses(t *testing.T) {
	t.Parallel()
	var late latenesses
	change := func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.SweepInterval, c.SweepGrace = 2*time.Second, 20*time.Second
		c.Listener.Fired = late.add
	}
	holder := setup(t, change).start(t)
	poll.Until(t, "it holds the lease", func() bool { return leaseHolder(t, holder) != "" })
	started := setupIn(t, holder.pool, holder.schema, change).start(t)
	stopped := setupIn(t, holder.pool, holder.schema, change)
	for n := range 20 {
		for who, b := range map[string]*bundle{"started": started, "stopped": stopped} {
			b.arm(t, fmt.Sprint(who, n), time.Duration(200+100*n)*time.Millisecond)
		}
	}
	fired := map[string]bool{}
	for range 40 {
		select {
		case e := <-holder.fired:
			fired[e.Subject] = true
		case e := <-started.fired:
			fired[e.Subject] = true
		case <-time.After(20 * time.Second):
			t.Fatal("nothing fired")
		}
	}
	if len(fired) != 40 {
		t.Errorf("%d fired, want 40", len(fired))
	}
	if p50 := late.quantile(0.5); p50 > 500*time.Millisecond {
		t.Errorf("half of them were later than %v", p50)
	}
	t.Logf("late: p50 %v, max %v", late.quantile(0.5), late.quantile(1))
}

func leaseHolder(t *testing.T, b *bundle) (holder string) {
	t.Helper()
	if err := b.pool.QueryRow(t.Context(), "SELECT COALESCE(max(holder::text), '') FROM lease WHERE name = 'timeout sweep' AND expires_at > clock_timestamp()").Scan(&holder); err != nil {
		t.Fatal(err)
	}
	return holder
}

// The holder of the lease was killed after it had claimed timeouts: another process sends them after the grace, and sends
// what comes due meanwhile.
func TestHolderOfTheLeaseIsKilled(t *testing.T) {
	t.Parallel()
	var late latenesses
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.SweepInterval, c.SweepGrace, c.RetryInterval = 500*time.Millisecond, time.Second, time.Minute
		c.Listener.Fired = late.add
	})
	dead := uuid.NewString()
	if _, err := b.pool.Exec(t.Context(), "INSERT INTO lease VALUES ('timeout sweep', $1::text::uuid, now() + interval '4 s')", dead); err != nil {
		t.Fatal(err)
	}
	b.arm(t, "claimed", 100*time.Millisecond)
	poll.Until(t, "it is due", func() bool { return b.count(t, "due_at <= clock_timestamp()") == 1 })
	claim := "UPDATE timeout SET sends = 1, next_sweep_at = now() + interval '1 s'"
	if _, err := b.pool.Exec(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	for n := range 10 {
		b.arm(t, fmt.Sprint(n), time.Duration(n)*100*time.Millisecond)
	}
	for range 11 {
		b.waitFired(t)
	}
	poll.Until(t, "the listener knows", func() bool { return late.count() == 11 })
	if p50 := late.quantile(0.5); p50 > time.Second {
		t.Errorf("half of them were later than %v", p50)
	}
	if late.quantile(1) < time.Second {
		t.Error("the timeout that was claimed is none that had to wait")
	}
	poll.Until(t, "another holds the lease", func() bool { h := leaseHolder(t, b); return h != "" && h != dead })
}

// frozen is a broker whose callers are frozen in the middle of a send, as by SIGSTOP.
type frozen struct {
	*fakeBroker
	inside chan struct{} // gets a value for each send that freezes
	thaw   chan struct{}
}

func (f *frozen) SendGroup(ctx context.Context, ms []broker.Message) []error {
	return sendEach(ctx, ms, f.Send)
}

func (f *frozen) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	f.inside <- struct{}{}
	<-f.thaw
	return f.fakeBroker.Send(context.WithoutCancel(ctx), m)
}

// The holder of the lease freezes in the middle of a page and continues when another process has sent everything: nothing
// fires twice.
func TestHolderOfTheLeaseFreezes(t *testing.T) {
	t.Parallel()
	ice := &frozen{inside: make(chan struct{}, 100), thaw: make(chan struct{})}
	stale := make(chan timeout.Info, 100)
	change := func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.SweepInterval, c.SweepGrace, c.RetryInterval, c.SendTimeout = 500*time.Millisecond, time.Second, time.Minute, 20*time.Second
		c.Listener.Stale = func(i timeout.Info) { stale <- i }
	}
	holder := setup(t, func(c *timeout.Config, m *fakeBroker) {
		change(c, m)
		ice.fakeBroker, c.Broker = m, ice
	}).start(t)
	poll.Until(t, "it holds the lease", func() bool { return leaseHolder(t, holder) != "" })
	first := leaseHolder(t, holder)
	const timeouts = 12
	for n := range timeouts {
		holder.arm(t, fmt.Sprint(n), 300*time.Millisecond)
	}
	<-ice.inside
	other := setupIn(t, holder.pool, holder.schema, change).start(t)
	for range timeouts {
		other.waitFired(t)
	}
	poll.Until(t, "another holds the lease", func() bool { h := leaseHolder(t, other); return h != "" && h != first })
	close(ice.thaw)
	<-stale
	if err := holder.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(holder.fired)+len(other.fired) != 0 {
		t.Error("some fired twice")
	}
	if n := other.count(t, "true"); n != 0 {
		t.Errorf("%d rows left", n)
	}
}

// partly is a broker of several, of which one is away.
type partly struct{ *fakeBroker }

func (p partly) SendGroup(ctx context.Context, ms []broker.Message) []error {
	return sendEach(ctx, ms, p.Send)
}

func (p partly) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	if strings.HasPrefix(m.Properties["CE_subject"], "away") {
		return broker.Receipt{}, broker.ErrUnavailable
	}
	return p.fakeBroker.Send(ctx, m)
}

// While one of several brokers is away, the timeouts whose events go to the others fire on time.
func TestOneBrokerOfSeveralIsAway(t *testing.T) {
	t.Parallel()
	var late latenesses
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.Broker = partly{m}
		c.SweepInterval, c.SweepGrace = 5*time.Second, 20*time.Second
		c.Listener.Fired = late.add
	}).start(t)
	for n := range 60 {
		b.arm(t, fmt.Sprint([]string{"away", "here"}[n%2], n), time.Second)
	}
	for range 30 {
		if e := b.waitFired(t); !strings.HasPrefix(e.Subject, "here") {
			t.Errorf("%s fired", e.Subject)
		}
	}
	if p50 := late.quantile(0.5); p50 > time.Second {
		t.Errorf("half of them were later than %v", p50)
	}
}

// An event that the broker rejects, such as one that is too large, doesn't delay the others.
func TestRejectedEventDelaysNoOther(t *testing.T) {
	t.Parallel()
	var late latenesses
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.horizon = 0
		c.Broker = rejecting{m}
		c.SweepInterval, c.SweepGrace, c.RetryInterval = 5*time.Second, 50*time.Millisecond, 50*time.Millisecond
		c.Listener.Fired = late.add
	}).start(t)
	b.arm(t, "poison", 100*time.Millisecond)
	for n := range 30 {
		b.arm(t, fmt.Sprint(n), 300*time.Millisecond+time.Duration(n)*30*time.Millisecond)
	}
	for range 30 {
		b.waitFired(t)
	}
	if p50 := late.quantile(0.5); p50 > time.Second {
		t.Errorf("half of them were later than %v", p50)
	}
	poll.Until(t, "the rejected event doesn't count as sent", func() bool { return b.count(t, "sends = 0") == 1 })
}

// A broker may turn out to have no timers after timeouts were handed over to it, or to have some.
func TestHorizonChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.loseAll = true
		c.SweepGrace = 500 * time.Millisecond
	}).start(t)
	b.arm(t, "handed over", time.Second)
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	b.broker.set(func() { b.broker.horizon = 0 })
	b.arm(t, "from Postgres", time.Second)
	got := []string{b.waitFired(t).Subject, b.waitFired(t).Subject}
	if slices.Sort(got); !slices.Equal(got, []string{"from Postgres", "handed over"}) {
		t.Errorf("fired %v", got)
	}
	b.broker.set(func() { b.broker.horizon, b.broker.loseAll = time.Hour, false })
	b.arm(t, "handed over again", time.Second)
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	b.waitFired(t)
}

func TestNewRefusesUnknownTimers(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Schema(t)
	_, err := timeout.New(timeout.Config{Pool: pool, Broker: &fakeBroker{}, Source: "s", Timers: "wheel"})
	var field *rocketflow.FieldError
	if !errors.As(err, &field) || field.Field != "timeout.Config.Timers" {
		t.Errorf("got %v", err)
	}
	if _, err := timeout.New(timeout.Config{Pool: pool, Broker: &fakeBroker{}, Source: "s", Horizon: time.Hour}); err != nil {
		t.Errorf("a horizon with a broker that has no timers: %v", err)
	}
}
