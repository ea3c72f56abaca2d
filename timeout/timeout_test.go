package timeout_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

func TestTimeoutFiresOnce(t *testing.T) {
	t.Parallel()
	late := make(chan time.Duration, 1)
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
		c.SweepGrace = 5 * time.Second
		c.Listener.Fired = func(i timeout.Info) { late <- i.Late }
	}).start(t)
	b.arm(t, "o1", time.Second)
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	e := b.waitFired(t)
	if e.Type != "order.payment_timed_out" || e.Subject != "o1" || e.Topic != "orders" || e.Source != "test" || e.TimeoutKey != "o1" ||
		e.TimeoutName != "payment" || e.Sequence != 0 || e.Headers["why"] != "late" || e.ID.Version() != 7 || e.Database == "" || e.Time.IsZero() {
		t.Errorf("unexpected event %+v", e)
	}
	if got, err := wire.DecodeBody[closeOrder](e); err != nil || got.Order != "o1" {
		t.Errorf("body: got %+v, %v", got, err)
	}
	if n := b.count(t, "true"); n != 0 {
		t.Errorf("%d rows left after firing", n)
	}
	if l := <-late; l < 0 {
		t.Errorf("reported as %v late", l)
	}
	if b.disarm(t, "o1") {
		t.Error("disarmed after it fired")
	}
	if scheduled, sent := b.broker.counts(); scheduled != 1 || sent != 0 {
		t.Errorf("%d timers and %d messages, want 1 and 0", scheduled, sent)
	}
}

func TestTimeInThePastIsDueAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, nil).start(t)
	b.arm(t, "o1", -time.Hour)
	b.waitFired(t)
}

func TestDisarmedTimeoutDoesNotFire(t *testing.T) {
	t.Parallel()
	stale := make(chan timeout.Info, 10)
	var disarmed sync.WaitGroup
	disarmed.Add(1)
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
		c.SweepGrace = 10 * time.Second
		c.Listener.Stale = func(i timeout.Info) { stale <- i }
		c.Listener.Disarmed = func(timeout.Info) { disarmed.Done() }
	}).start(t)
	b.arm(t, "o1", time.Second)
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	if !b.disarm(t, "o1") {
		t.Error("was not armed")
	}
	if b.disarm(t, "o1") {
		t.Error("disarmed twice")
	}
	disarmed.Wait()
	<-stale // the broker delivered the event all the same
	if len(b.fired) != 0 {
		t.Error("fired after it was disarmed")
	}
}

func TestOldEpochsAreStale(t *testing.T) {
	t.Parallel()
	stale := make(chan timeout.Info, 10)
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
		c.SweepGrace = 10 * time.Second
		c.Listener.Stale = func(i timeout.Info) { stale <- i }
	}).start(t)
	ctx := t.Context()
	b.arm(t, "o1", time.Second)
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	due := time.Now().Add(3 * time.Second)
	err := within(ctx, b.pool, func(tx rocketflow.Tx) error {
		moved, err := b.Move(ctx, tx, "o1", "payment", due)
		if !moved {
			t.Error("not armed")
		}
		if other, err := b.Move(ctx, tx, "o1", "delivery", due); other || err != nil {
			t.Errorf("moved what was never armed: %v, %v", other, err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	first := <-stale // the event of the old epoch
	b.arm(t, "o1", 500*time.Millisecond)
	if b.count(t, "due_at < now() + interval '510 ms'") != 1 {
		t.Error("arming again did not move it")
	}
	third := b.waitFired(t)
	if third.ID == first.Epoch {
		t.Error("the old epoch fired")
	}
	second := <-stale
	if second.Epoch == first.Epoch || second.Epoch == third.ID {
		t.Error("an epoch was used twice")
	}
	if len(b.fired) != 0 {
		t.Error("fired twice")
	}
}

// The clock of the broker is ahead, and the fence goes by that of Postgres.
func TestFenceDelaysEarlyEvents(t *testing.T) {
	t.Parallel()
	var early sync.Map
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.skew = 300 * time.Millisecond
		c.Listener.TooEarly = func(i timeout.Info) { early.Store(i.Key, i.Late) }
	}).start(t)
	var due sync.Map
	for n := range 50 {
		key := uuid.NewString()
		at := time.Now().Add(time.Duration(100+10*n)*time.Millisecond + 1) // a nanosecond: rounded up
		due.Store(key, at)
		if err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
			return b.Arm(t.Context(), tx, key, "payment", at, closeOrder{key})
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		e := b.waitFired(t)
		at, _ := due.Load(e.Subject)
		if now := time.Now(); now.Before(at.(time.Time)) {
			t.Errorf("fired %v early", at.(time.Time).Sub(now))
		}
	}
	n := 0
	early.Range(func(any, any) bool { n++; return true })
	if n == 0 {
		t.Error("no event came early, so the test proves nothing")
	}
}

func TestRolledBackArmHasNoEffect(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) { c.SweepGrace = 5 * time.Second }).start(t)
	boom := errors.New("boom")
	err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
		if err := b.Arm(t.Context(), tx, "o1", "payment", time.Now(), closeOrder{"o1"}); err != nil {
			t.Error(err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	b.arm(t, "o2", 0)
	if e := b.waitFired(t); e.Subject != "o2" {
		t.Errorf("%s fired", e.Subject)
	}
	if scheduled, _ := b.broker.counts(); scheduled != 1 || b.count(t, "true") != 0 {
		t.Errorf("%d timers at the broker, want 1", scheduled)
	}
}

// The process that armed the timeout died before the hand-over, or never started its scheduler: another one hands it over.
func TestSweepHandsOverAfterACrash(t *testing.T) {
	t.Parallel()
	recovered := make(chan timeout.Info, 10)
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
		c.SweepGrace = time.Second
		c.Listener.Recovered = func(i timeout.Info) { recovered <- i }
	})
	b.arm(t, "o1", 3*time.Second)
	if scheduled, _ := b.broker.counts(); scheduled != 0 {
		t.Fatal("a stopped scheduler handed over")
	}
	b.start(t)
	if i := <-recovered; i.Late >= 0 {
		t.Errorf("handed over %v after it was due", i.Late)
	}
	b.waitFired(t)
	if scheduled, sent := b.broker.counts(); scheduled != 1 || sent != 0 {
		t.Errorf("%d timers and %d messages, want 1 and 0", scheduled, sent)
	}
}

func TestSweepHandsOverAfterAnOutage(t *testing.T) {
	t.Parallel()
	refused := make(chan error, 100)
	b := setup(t, func(c *timeout.Config, m *fakeBroker) {
		m.away = true
		c.Listener.HandOverFailed = func(i timeout.Info) { refused <- i.Err }
	}).start(t)
	b.arm(t, "o1", 50*time.Millisecond)
	for range 3 { // at once, and by the sweep
		if err := <-refused; !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	b.broker.set(func() { b.broker.away = false })
	b.waitFired(t)
}

func TestSweepSendsWhatTheBrokerLost(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *timeout.Config, m *fakeBroker) { m.loseAll = true }).start(t)
	b.arm(t, "o1", 100*time.Millisecond)
	b.waitFired(t)
	if _, sent := b.broker.counts(); sent == 0 {
		t.Error("fired, but not by the sweep")
	}
}

// The pause before an overdue timeout is sent again doubles, so that a consumer that was down finds few copies.
func TestPausesBetweenSendsGrow(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, m *fakeBroker) { c.SweepGrace = 50 * time.Millisecond })
	b.broker.handler = nil
	b.start(t)
	begin := time.Now()
	b.arm(t, "o1", time.Second) // so that it is handed over before it is due
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	poll.Until(t, "sent three times", func() bool { _, sent := b.broker.counts(); return sent == 3 })
	if took := time.Since(begin); took < 1300*time.Millisecond { // a second, then 50 ms, 100 ms and 200 ms
		t.Errorf("sent 3 times in %v", took)
	}
}

func TestHandOverWaitsForTheHorizon(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) { c.Horizon, c.SweepGrace = 300*time.Millisecond, 5*time.Second }).start(t)
	b.arm(t, "far", time.Hour)
	armed := time.Now()
	b.arm(t, "o1", time.Second)
	if scheduled, _ := b.broker.counts(); scheduled != 0 {
		t.Error("handed over at once")
	}
	poll.Until(t, "handed over", func() bool { return b.count(t, "handed_over") == 1 })
	if after := time.Since(armed); after < 600*time.Millisecond {
		t.Errorf("handed over after %v, beyond the horizon", after)
	}
	if e := b.waitFired(t); e.Subject != "o1" {
		t.Errorf("%s fired", e.Subject)
	}
	if scheduled, sent := b.broker.counts(); scheduled != 1 || sent != 0 {
		t.Errorf("%d timers and %d messages, want 1 and 0", scheduled, sent)
	}
}

// A broker without timers: the sweep sends what is due.
func TestBrokerWithoutTimers(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *timeout.Config, m *fakeBroker) { m.horizon, c.SweepGrace = 0, time.Minute }).start(t)
	b.arm(t, "o1", 300*time.Millisecond)
	b.waitFired(t)
	if scheduled, _ := b.broker.counts(); scheduled != 0 {
		t.Error("scheduled beyond the horizon")
	}
}

func TestSchedulersShareTheWork(t *testing.T) {
	t.Parallel()
	const timeouts = 300
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) { c.SweepGrace, c.SweepPage = 20*time.Second, 16 })
	for range timeouts { // left behind by a crash
		b.arm(t, uuid.NewString(), 2*time.Second)
	}
	if _, err := b.pool.Exec(t.Context(), "UPDATE timeout SET next_sweep_at = now()"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := timeout.New(timeout.Config{
			Pool: b.pool, Broker: b.broker, Schema: b.schema, Source: "test",
			SweepInterval: 10 * time.Millisecond, SweepGrace: 20 * time.Second, SweepPage: 16,
		})
		if err != nil {
			t.Fatal(err)
		}
		start(t, s)
	}
	seen := map[string]bool{}
	for range timeouts {
		e := b.waitFired(t)
		if seen[e.Subject] {
			t.Errorf("%s fired twice", e.Subject)
		}
		seen[e.Subject] = true
	}
	if scheduled, sent := b.broker.counts(); scheduled+sent != timeouts {
		t.Errorf("%d timers and %d messages, want %d together", scheduled, sent, timeouts)
	}
}

// A handler arms the timeout whose event it handles again, as for reminders.
func TestHandlerArmsItsOwnTimeoutAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	times := make(chan int, 10)
	if _, err := b.pool.Exec(t.Context(), "CREATE TABLE firings (n int); INSERT INTO firings VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	b.broker.handler = b.Fence(b.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		var n int
		if err := tx.QueryRow(ctx, "UPDATE firings SET n = n + 1 RETURNING n").Scan(&n); err != nil {
			return err
		}
		tx.AfterCommit(func() { times <- n })
		if n == 3 {
			if err := b.Arm(ctx, tx, "o1", "payment", time.Now(), closeOrder{"o1"}); err != nil {
				return err
			}
			was, err := b.Disarm(ctx, tx, "o1", "payment")
			if !was {
				t.Error("its own firing counts as disarmed")
			}
			return err
		}
		if n == 2 {
			moved, err := b.Move(ctx, tx, "o1", "payment", time.Now().Add(50*time.Millisecond))
			if !moved && err == nil {
				err = rocketflow.ErrStale // a second copy of the event
			}
			return err
		}
		// What a savepoint takes back does not count.
		sub, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if err := b.Arm(ctx, &testdb.Tx{Tx: sub}, "o1", "payment", time.Now(), closeOrder{"o1"}); err != nil {
			return err
		}
		if err := sub.Rollback(ctx); err != nil {
			return err
		}
		return b.Arm(ctx, tx, "o1", "payment", time.Now().Add(50*time.Millisecond), closeOrder{"o1"})
	}))
	b.start(t)
	b.arm(t, "o1", 50*time.Millisecond)
	for want := 1; want <= 3; want++ {
		if got := <-times; got != want {
			t.Fatalf("firing %d, want %d", got, want)
		}
	}
	if n := b.count(t, "true"); n != 0 {
		t.Errorf("%d rows armed after the last", n)
	}
	b.broker.set(func() {
		if len(b.broker.failures) > 0 {
			t.Error(b.broker.failures)
		}
	})
}

// The handler of a stale firing can't arm the timeout again.
func TestStaleFiringCannotArmAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	b.arm(t, "o1", -time.Second)
	var id uuid.UUID
	if err := b.pool.QueryRow(ctx, "SELECT epoch FROM timeout").Scan(&id); err != nil {
		t.Fatal(err)
	}
	var got error
	h := b.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if !b.disarm(t, "o1") { // another transaction, which commits first
			t.Error("not armed")
		}
		got = b.Arm(ctx, tx, "o1", "payment", time.Now(), closeOrder{"o1"})
		return got
	})
	if err := handle(b.pool, h, rocketflow.Event{ID: id, TimeoutKey: "o1", TimeoutName: "payment", Database: b.database(t)}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(got, rocketflow.ErrStale) {
		t.Errorf("got %v, want ErrStale", got)
	}
	if n := b.count(t, "true"); n != 0 {
		t.Errorf("%d rows armed", n)
	}
}

func TestFencePassesOtherEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	want := errors.New("mine")
	h := b.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { return want })
	if err := h(t.Context(), nil, rocketflow.Event{}); err != want {
		t.Errorf("got %v", err)
	}
}

func TestTimeoutStaysArmedAfterAHandlerError(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var calls atomic.Int32
	done := make(chan struct{})
	b.broker.handler = b.Fence(func(_ context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if calls.Add(1) <= 2 {
			return errors.New("database of someone else is away")
		}
		tx.AfterCommit(func() { close(done) })
		return nil
	})
	b.start(t)
	b.arm(t, "o1", 0)
	<-done // the sweep brought it again
}

func TestStartAndStopAnyNumberOfTimes(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	steps := []func(context.Context) error{b.Stop, b.Start, b.Start, b.Stop, b.Stop, b.Start}
	for n, step := range steps {
		startCtx, cancel := context.WithCancel(ctx)
		if err := step(startCtx); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		cancel() // ends the start only
	}
	b.arm(t, "o1", 0)
	b.waitFired(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { _, _ = b.Stop(ctx), b.Start(ctx) })
	}
	group.Wait()
	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestStartWithoutTables(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Schema(t)
	s, err := timeout.New(timeout.Config{Pool: pool, Broker: &fakeBroker{horizon: time.Hour}, Schema: schema, Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Errorf("got %v, want ErrNotMigrated", err)
	}
}

func TestArmNamesTheBadArgument(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	now := time.Now()
	for name, c := range map[string]struct {
		key, name string
		at        time.Time
		event     rocketflow.Payload
		field     string
	}{
		"no key":        {"", "n", now, closeOrder{"o"}, "key"},
		"long key":      {strings.Repeat("k", timeout.MaxKey+1), "n", now, closeOrder{"o"}, "key"},
		"control":       {"a\x01b", "n", now, closeOrder{"o"}, "key"},
		"no name":       {"k", "", now, closeOrder{"o"}, "name"},
		"not UTF-8":     {"k", "\xff", now, closeOrder{"o"}, "name"},
		"no instant":    {"k", "n", time.Time{}, closeOrder{"o"}, "at"},
		"absurd":        {"k", "n", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), closeOrder{"o"}, "at"},
		"no event":      {"k", "n", now, nil, "event"},
		"without topic": {"k", "n", now, rocketflow.Event{Type: "t"}, "topic"},
		"large body":    {"k", "n", now, rocketflow.Event{Topic: "t", Type: "t", Body: make([]byte, 1<<20+1)}, "body"},
		"bad subject":   {"k", "n", now, closeOrder{"a\nb"}, "subject"},
	} {
		err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
			err := b.Arm(t.Context(), tx, c.key, c.name, c.at, c.event)
			if _, execErr := tx.Exec(t.Context(), "SELECT 1"); execErr != nil {
				t.Errorf("%s: the transaction is unusable: %v", name, execErr)
			}
			return err
		})
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("%s: got %v, want field %q", name, err, c.field)
		}
	}
}

func TestNewNamesTheBadField(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Schema(t)
	m := &fakeBroker{horizon: time.Hour}
	for _, c := range []struct {
		config timeout.Config
		field  string
	}{
		{timeout.Config{Broker: m, Source: "s"}, "timeout.Config.Pool"},
		{timeout.Config{Pool: pool, Source: "s"}, "timeout.Config.Broker"},
		{timeout.Config{Pool: pool, Broker: m}, "timeout.Config.Source"},
		{timeout.Config{Pool: pool, Broker: m, Source: "s", Horizon: 2 * time.Hour}, "timeout.Config.Horizon"},
		{timeout.Config{Pool: pool, Broker: m, Source: "s", SweepGrace: -1}, "timeout.Config.SweepGrace"},
		{timeout.Config{Pool: pool, Broker: m, Source: "s", Workers: -1}, "timeout.Config.Workers"},
	} {
		_, err := timeout.New(c.config)
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("got %v, want field %q", err, c.field)
		}
	}
	if _, err := timeout.New(timeout.Config{Pool: pool, Broker: m, Source: "s"}); err != nil {
		t.Error(err)
	}
}

// A message that the broker rejects doesn't hold back the others of the page.
func TestRejectedMessageHoldsNothingBack(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	picky := rejecting{b.broker}
	s, err := timeout.New(timeout.Config{
		Pool: b.pool, Broker: picky, Schema: b.schema, Source: "test", Workers: 1,
		SweepInterval: 10 * time.Millisecond, SweepGrace: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"poison", "a", "b", "c"}
	for _, key := range keys {
		b.arm(t, key, 0)
	}
	start(t, s)
	var got []string
	for range 3 {
		got = append(got, b.waitFired(t).Subject)
	}
	slices.Sort(got)
	if !slices.Equal(got, keys[1:]) {
		t.Errorf("fired %v", got)
	}
}

type rejecting struct{ *fakeBroker }

func (r rejecting) SendGroup(ctx context.Context, ms []broker.Message) []error {
	return sendEach(ctx, ms, r.Send)
}

func (r rejecting) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	if m.Properties["CE_subject"] == "poison" {
		return broker.Receipt{}, broker.ErrTooLarge
	}
	return r.fakeBroker.Send(ctx, m)
}
