package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// transactor is a rocketflow.Transactor without an outbox.
type transactor struct{ b *bundle }

func (t transactor) Within(ctx context.Context, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return t.WithinTx(ctx, pgx.TxOptions{}, fn)
}

func (t transactor) WithinTx(ctx context.Context, options pgx.TxOptions, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return testdb.Within(ctx, t.b.pool, options, func(tx *testdb.Tx) error { return fn(ctx, tx) })
}

type reserved struct{ OrderID string }

func (p reserved) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "stock", Type: "stock.reserved", Subject: p.OrderID}
}

// stages is a saga whose events come from three sources: reserved, paid (in parts), shipped. Each call of a function adds a note.
func stages(pay func(ctx context.Context, tx rocketflow.Tx, o *steps, p paid) error) *saga.Definition[steps] {
	d := saga.Define[steps]("stages", 1).Initial("awaiting_stock").NoDeadline("awaiting_stock", "paid").
		Deadline("awaiting_payment", "closed", func(o *steps) time.Time { return o.PayBy }, nil).Final("done", "closed")
	saga.On(d, "awaiting_stock", "awaiting_payment", func(_ context.Context, _ rocketflow.Tx, o *steps, _ reserved) error {
		o.Notes = append(o.Notes, "reserved")
		return nil
	})
	do := func(ctx context.Context, tx rocketflow.Tx, o *steps, p paid) error {
		o.Notes = append(o.Notes, fmt.Sprint("paid ", p.Amount))
		if pay != nil {
			return pay(ctx, tx, o, p)
		}
		return nil
	}
	saga.On(d, "awaiting_payment", "paid", do)
	saga.On(d, "paid", "paid", do)
	saga.On(d, "paid", "done", func(_ context.Context, _ rocketflow.Tx, o *steps, _ shipped) error {
		o.Notes = append(o.Notes, "shipped")
		return nil
	})
	saga.KeyBy(d, func(p shipped) string { return p.OrderID })
	return d
}

type steps struct {
	Notes []string
	PayBy time.Time
}

func register[S any](t *testing.T, b *bundle, d *saga.Definition[S]) *saga.Saga[S] {
	t.Helper()
	s, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func beginSteps(t *testing.T, b *bundle, s *saga.Saga[steps], key string) {
	t.Helper()
	err := within(t.Context(), b.pool, func(tx *testdb.Tx) error {
		return s.Begin(t.Context(), tx, key, steps{PayBy: time.Now().Add(time.Hour)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) must(t *testing.T, payloads ...rocketflow.Payload) {
	t.Helper()
	for _, p := range payloads {
		if _, err := b.send(p); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
	}
}

func (b *bundle) waiting(t *testing.T, f operate.WaitingFilter) []operate.WaitingEvent {
	t.Helper()
	list, err := testoperator.New(t, b.pool, b.schema).WaitingEvents(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func get[S any](t *testing.T, b *bundle, s *saga.Saga[S], key string) saga.Instance[S] {
	t.Helper()
	i, err := s.Get(t.Context(), b.pool, key)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Events of several sources come in the wrong order: each waits for the state that accepts it.
func TestEarlyEventsWaitForTheirState(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{
		{"reserved", "paid", "shipped"}, {"paid", "reserved", "shipped"}, {"shipped", "paid", "reserved"},
		{"paid", "shipped", "begin", "reserved"}, {"shipped", "reserved", "paid", "begin"},
	} {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := register(t, b, stages(nil))
			if !slices.Contains(order, "begin") {
				beginSteps(t, b, s, "o1")
			}
			for _, step := range order {
				switch step {
				case "begin":
					beginSteps(t, b, s, "o1")
				case "reserved":
					b.must(t, reserved{"o1"})
				case "paid":
					b.must(t, paid{"o1", 7})
				case "shipped":
					b.must(t, shipped{"p", "o1"})
				}
			}
			i := get(t, b, s, "o1")
			if i.State != "done" || !slices.Equal(i.Data.Notes, []string{"reserved", "paid 7", "shipped"}) || i.Revision != 4 {
				t.Errorf("got %+v", i)
			}
			if left := b.waiting(t, operate.WaitingFilter{}); len(left) > 0 || len(b.ignored) > 0 {
				t.Errorf("waiting %+v, ignored %+v", left, b.ignored)
			}
			if left := b.armed(t, "stages/o1"); len(left) > 0 {
				t.Errorf("armed: %v", left)
			}
			records, err := testoperator.New(t, b.pool, b.schema).Sagas(t.Context(), operate.SagaFilter{Key: "o1"})
			if err != nil {
				t.Fatal(err)
			}
			var causes []string
			for _, tr := range records[0].Transitions {
				causes = append(causes, tr.CauseType)
			}
			if want := []string{"saga.begin", "stock.reserved", "payment.received", "parcel.shipped"}; !slices.Equal(causes, want) {
				t.Errorf("caused by %v", causes)
			}
		})
	}
}

// Apply and a deadline apply waiting events, as an event does.
func TestApplyAndDeadlineApplyWaitingEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "applied")
	b.must(t, paid{"applied", 1})
	if err := within(ctx, b.pool, func(tx *testdb.Tx) error { return s.Apply(ctx, tx, "applied", reserved{}) }); err != nil {
		t.Fatal(err)
	}
	if i := get(t, b, s, "applied"); i.State != "paid" {
		t.Errorf("got %+v", i)
	}

	d := saga.Define[steps]("delayed", 1).Initial("cooling").NoDeadline("open").Final("paid").
		Deadline("cooling", "open", func(*steps) time.Time { return time.Now().Add(-time.Second) }, nil)
	saga.On(d, "open", "paid", func(_ context.Context, _ rocketflow.Tx, o *steps, p paid) error {
		o.Notes = append(o.Notes, "paid")
		return nil
	})
	delayed := register(t, b, d)
	beginSteps(t, b, delayed, "o2")
	b.must(t, paid{"o2", 1})
	e, err := b.deadline(ctx, "delayed/o2", "cooling")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handle(e); err != nil {
		t.Fatal(err)
	}
	if i := get(t, b, delayed, "o2"); i.State != "paid" || len(i.Data.Notes) != 1 {
		t.Errorf("got %+v", i)
	}
}

// Events that wait when the saga finishes are ignored, as those that come later.
func TestWaitingEventsOfAFinishedSagaAreIgnored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	b.must(t, shipped{"p", "o1"}, reserved{"o1"})
	if w := b.waiting(t, operate.WaitingFilter{Key: "o1"}); len(w) != 1 || w[0].State != "awaiting_stock" || w[0].Status != operate.WaitingForState ||
		w[0].Event.Type != "parcel.shipped" || !w[0].Begun {
		t.Fatalf("waiting: %+v", w)
	}
	if _, err := b.pool.Exec(t.Context(), "UPDATE timeout SET due_at = now() - interval '1 s'"); err != nil {
		t.Fatal(err)
	}
	e, err := b.deadline(t.Context(), "stages/o1", "awaiting_payment")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handle(e); err != nil {
		t.Fatal(err)
	}
	if i := get(t, b, s, "o1"); i.State != "closed" {
		t.Errorf("got %+v", i)
	}
	if len(b.ignored) != 1 || b.ignored[0].Reason != saga.Finished || b.ignored[0].Type != "parcel.shipped" {
		t.Errorf("ignored: %+v", b.ignored)
	}
	if w := b.waiting(t, operate.WaitingFilter{}); len(w) > 0 {
		t.Errorf("still waiting: %+v", w)
	}
}

// The failure of a waiting event's function doesn't take back the transition before it. The event is tried again, and later
// events of its stream wait behind it.
func TestFailedWaitingEventIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	var broken atomic.Bool
	broken.Store(true)
	var mode atomic.Value
	mode.Store("error")
	s := register(t, b, stages(func(ctx context.Context, tx rocketflow.Tx, o *steps, p paid) error {
		if err := tx.Publish(ctx, released{"by the payment"}); err != nil {
			return err
		}
		if !broken.Load() || p.Amount != 1 {
			return nil
		}
		switch mode.Load() {
		case "panic":
			panic("boom")
		case "sql":
			_, err := tx.Exec(ctx, "SELECT 1/0")
			return err
		case "swallowed":
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			return nil
		case "ends":
			return tx.Commit(ctx)
		}
		return errBoom
	}))
	for _, m := range []string{"error", "panic", "sql", "swallowed", "ends"} {
		mode.Store(m)
		beginSteps(t, b, s, m)
		for n, amount := range []int64{1, 2} {
			e, err := wire.NewEvent(paid{m, amount})
			if err != nil {
				t.Fatal(err)
			}
			e.Source, e.Sequence, e.Previous, e.Time = "bank", int64(n+1), int64(n), time.Now()
			if _, err := b.handle(e); err != nil {
				t.Fatal(err)
			}
		}
		published, err := b.send(reserved{m})
		if err != nil || len(published) > 0 {
			t.Fatalf("%s: published %v, %v", m, published, err)
		}
		i := get(t, b, s, m)
		if i.State != "awaiting_payment" || !slices.Equal(i.Data.Notes, []string{"reserved"}) {
			t.Errorf("%s: got %+v", m, i)
		}
		w := b.waiting(t, operate.WaitingFilter{Key: m})
		if len(w) != 2 || w[0].Status != operate.WaitingForRetry || w[0].Attempts != 1 || w[0].LastError == "" || w[1].Status != operate.WaitingForState {
			t.Errorf("%s: waiting %+v", m, w)
		}
	}
	// One that comes now goes behind them.
	e, err := wire.NewEvent(paid{"error", 3})
	if err != nil {
		t.Fatal(err)
	}
	e.Source, e.Sequence, e.Previous, e.Time = "bank", 3, 2, time.Now()
	if _, err := b.handle(e); err != nil {
		t.Fatal(err)
	}
	broken.Store(false)
	cfg := b.cfg
	b.startWith(t, cfg, stages(nil))
	poll.Until(t, "the failed event and its followers are applied in order", func() bool {
		i := get(t, b, s, "error")
		return slices.Equal(i.Data.Notes, []string{"reserved", "paid 1", "paid 2", "paid 3"})
	})
	if err := ctx.Err(); err != nil {
		t.Fatal(err)
	}
}

// startWith starts another engine on the same tables, as another process of the service would.
func (b *bundle) startWith(t *testing.T, cfg saga.Config, d *saga.Definition[steps]) {
	t.Helper()
	cfg.Router = router{}
	e := b.engine(t, cfg)
	if _, err := saga.Register(e, d); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

type settles struct{ error }

func (settles) Settles() bool { return true }

// The error of a function has the same meaning for a waiting event as for any event.
func TestErrorsOfWaitingEventsDecide(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var answer atomic.Value
	s := register(t, b, stages(func(context.Context, rocketflow.Tx, *steps, paid) error { return answer.Load().(error) }))
	for name, c := range map[string]struct {
		err    error
		status operate.WaitingStatus // empty: settled
	}{
		"stale":    {fmt.Errorf("x: %w", rocketflow.ErrStale), ""},
		"discard":  {fmt.Errorf("x: %w", settles{errBoom}), ""},
		"later":    {&rocketflow.RetryAfterError{After: time.Hour}, operate.WaitingForRetry},
		"unread":   {rocketflow.ErrUndecodable, operate.WaitingFailed},
		"ordinary": {errBoom, operate.WaitingForRetry},
	} {
		answer.Store(fmt.Errorf("%w", c.err))
		beginSteps(t, b, s, name)
		b.must(t, paid{name, 1}, reserved{name})
		w := b.waiting(t, operate.WaitingFilter{Key: name})
		switch {
		case c.status == "" && len(w) > 0, c.status != "" && (len(w) != 1 || w[0].Status != c.status):
			t.Errorf("%s: waiting %+v", name, w)
		}
		if i := get(t, b, s, name); i.State != "awaiting_payment" {
			t.Errorf("%s: got %+v", name, i)
		}
	}
}

// An event that waits for longer than its limit expires, and an operator retries or discards it.
func TestWaitingEventsExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	b.must(t, paid{"o1", 1}, paid{"nobody", 1})
	for key, limit := range map[string]time.Duration{"o1": 7 * 24 * time.Hour, "nobody": 24 * time.Hour} {
		w := b.waiting(t, operate.WaitingFilter{Key: key})
		if len(w) != 1 || w[0].ExpiresAt.Sub(w[0].ArrivedAt).Round(time.Minute) != limit {
			t.Fatalf("waiting: %+v", w)
		}
	}
	if _, err := b.pool.Exec(ctx, "UPDATE saga_waiting SET expires_at = now(), next_at = now()"); err != nil {
		t.Fatal(err)
	}
	expired := make(chan saga.WaitInfo, 10)
	cfg := b.cfg
	cfg.Listener = saga.Tee(cfg.Listener, &saga.Listener{WaitExpired: func(i saga.WaitInfo) { expired <- i }})
	b.startWith(t, cfg, stages(nil))
	for range 2 {
		select {
		case <-expired:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing expired")
		}
	}
	w := b.waiting(t, operate.WaitingFilter{Statuses: []operate.WaitingStatus{operate.WaitingExpired}})
	if len(w) != 2 {
		t.Fatalf("expired: %+v", b.waiting(t, operate.WaitingFilter{}))
	}
	b.must(t, reserved{"o1"})
	if i := get(t, b, s, "o1"); i.State != "awaiting_payment" {
		t.Errorf("an expired event was applied: %+v", i)
	}
	operator := testoperator.New(t, b.pool, b.schema)
	mine := b.waiting(t, operate.WaitingFilter{Key: "o1"})[0]
	if n, err := operator.RetryWaiting(ctx, operate.WaitingFilter{IDs: []int64{mine.ID}}); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	poll.Until(t, "the event is applied", func() bool { return get(t, b, s, "o1").State == "paid" })
	other := b.waiting(t, operate.WaitingFilter{Key: "nobody"})[0]
	if n, err := operator.DiscardWaiting(ctx, operate.WaitingFilter{IDs: []int64{other.ID, 1 << 40}}); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if w := b.waiting(t, operate.WaitingFilter{}); len(w) > 0 {
		t.Errorf("left: %+v", w)
	}
}

// Failed and expired events are kept for the retention and then deleted.
func TestRetentionDeletesFailedAndExpiredEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	b.must(t, paid{"o1", 1}, paid{"o2", 1}, paid{"o3", 1})
	if _, err := b.pool.Exec(ctx, `UPDATE saga_waiting SET changed_at = now() - interval '31 days';
		UPDATE saga_waiting SET status = 'failed' WHERE key = 'o2'; UPDATE saga_waiting SET status = 'expired' WHERE key = 'o3'`); err != nil {
		t.Fatal(err)
	}
	b.startWith(t, b.cfg, stages(nil))
	poll.Until(t, "one is left", func() bool {
		w := b.waiting(t, operate.WaitingFilter{})
		return len(w) == 1 && w[0].Key == "o1"
	})
}

// The transaction of an event and that of the beginning of its saga don't see each other. The event is applied all the same.
func TestEventBesideABeginIsApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	cfg := b.cfg
	b.Engine = b.engine(t, cfg)
	s := register(t, b, stages(nil))
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop(context.Background()) })
	for _, eventLast := range []bool{true, false} {
		key := fmt.Sprint("event last: ", eventLast)
		var began, came *testdb.Tx
		for _, tx := range []**testdb.Tx{&began, &came} {
			inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
			if err != nil {
				t.Fatal(err)
			}
			*tx = &testdb.Tx{Tx: inner}
		}
		if err := s.Begin(ctx, began, key, steps{PayBy: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		e, err := wire.NewEvent(reserved{key})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.router["sagas-stages "+e.Topic+" "+e.Type](ctx, came, e); err != nil {
			t.Fatal(err)
		}
		order := []*testdb.Tx{began, came}
		if !eventLast {
			slices.Reverse(order)
		}
		start := time.Now()
		for _, tx := range order {
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			for _, fn := range tx.After {
				fn()
			}
		}
		poll.Until(t, "they met", func() bool { return get(t, b, s, key).State == "awaiting_payment" })
		t.Logf("%s: met after %v", key, time.Since(start))
	}
}

// At repeatable read, a transition that doesn't see the event which began to wait gets a serialization error.
func TestTransitionBesideAnEarlyEventAtRepeatableRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inner.Rollback(context.Background()) }()
	if _, err := inner.Exec(ctx, "SELECT 1 FROM saga"); err != nil { // takes the snapshot
		t.Fatal(err)
	}
	b.must(t, paid{"o1", 1})
	if err := s.Apply(ctx, &testdb.Tx{Tx: inner}, "o1", reserved{"o1"}); err == nil || !strings.Contains(err.Error(), "40001") {
		t.Fatalf("got %v, want a serialization failure", err)
	}
}

// The event of StartOn begins a saga once.
func TestStartOnBeginsASaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	d := stages(nil)
	var calls atomic.Int32
	saga.StartOn(d, func(ctx context.Context, tx rocketflow.Tx, p placed) (steps, error) {
		calls.Add(1)
		if p.OrderID == "bad" {
			return steps{}, errBoom
		}
		return steps{Notes: []string{"placed"}, PayBy: time.Now().Add(time.Hour)}, tx.Publish(ctx, released{"by the start"})
	})
	s := register(t, b, d)
	b.must(t, paid{"o1", 1}, reserved{"o1"})
	e, err := wire.NewEvent(placed{"o1"})
	if err != nil {
		t.Fatal(err)
	}
	published, err := b.handle(e)
	if err != nil || len(published) != 1 {
		t.Fatalf("published %v, %v", published, err)
	}
	i := get(t, b, s, "o1")
	if i.State != "paid" || !slices.Equal(i.Data.Notes, []string{"placed", "reserved", "paid 1"}) {
		t.Errorf("got %+v", i)
	}
	records, err := testoperator.New(t, b.pool, b.schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
	if err != nil || records[0].Transitions[0].CauseID != e.ID || records[0].Transitions[0].CauseType != "order.placed" {
		t.Errorf("got %+v, %v", records, err)
	}
	b.must(t, placed{"o1"})
	if len(b.ignored) != 1 || b.ignored[0].Reason != saga.AlreadyBegun || calls.Load() != 1 {
		t.Errorf("ignored %+v; %d calls", b.ignored, calls.Load())
	}
	if _, err := b.send(placed{"bad"}); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Get(ctx, b.pool, "bad"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

type placed struct{ OrderID string }

func (p placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

// EventFrom returns the event that a function is called for, also one that has waited.
func TestEventFromReturnsTheCause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var seen []string
	s := register(t, b, stages(func(ctx context.Context, _ rocketflow.Tx, _ *steps, _ paid) error {
		e, ok := saga.EventFrom(ctx)
		seen = append(seen, fmt.Sprint(e.Type, ok))
		return nil
	}))
	beginSteps(t, b, s, "o1")
	b.must(t, paid{"o1", 1}, reserved{"o1"}, paid{"o1", 2})
	if !slices.Equal(seen, []string{"payment.receivedtrue", "payment.receivedtrue"}) {
		t.Errorf("seen %v", seen)
	}
}

// The engine applies in further transactions what one transaction leaves.
func TestMoreWaitingEventsThanOneTransactionApplies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.cfg
	s := register(t, b, stages(nil))
	beginSteps(t, b, s, "o1")
	const n = 100
	for i := range n {
		b.must(t, paid{"o1", int64(i)})
	}
	b.must(t, reserved{"o1"})
	b.startWith(t, cfg, stages(nil))
	poll.Until(t, "all are applied", func() bool { return len(get(t, b, s, "o1").Data.Notes) == n+1 })
	for i, note := range get(t, b, s, "o1").Data.Notes[1:] {
		if note != fmt.Sprint("paid ", i) {
			t.Fatalf("%d is %s", i, note)
		}
	}
}
