package saga_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

func TestEventsMakeTransitions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	b.begin(t, s, "o1", order{Lines: []line{{"lamp", 2}}})
	if got := b.armed(t, "order/o1"); !slices.Equal(got, []string{"awaiting_payment"}) {
		t.Fatalf("armed: %v", got)
	}
	event, err := wire.NewEvent(paid{"o1", 70})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handle(event); err != nil {
		t.Fatal(err)
	}
	if got := b.armed(t, "order/o1"); len(got) != 0 {
		t.Errorf("still armed: %v", got)
	}
	if _, err := b.send(paid{"o1", 30}); err != nil { // stays
		t.Fatal(err)
	}
	if _, err := b.send(shipped{"parcel 7", "o1"}); err != nil { // found by KeyBy
		t.Fatal(err)
	}
	i, err := s.Get(ctx, b.pool, "o1")
	if err != nil {
		t.Fatal(err)
	}
	if i.State != "shipped" || i.Revision != 4 || !i.Finished() || i.Data.Paid != 100 || i.Data.Lines[0].SKU != "lamp" || i.Version != 1 {
		t.Errorf("unexpected %+v", i)
	}

	records, err := testoperator.New(t, b.pool, b.schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].State != "shipped" || !bytes.Contains(records[0].Data, []byte(`"paid": 100`)) {
		t.Fatalf("unexpected %+v", records)
	}
	type step struct{ from, to, cause string }
	var steps []step
	for n, tr := range records[0].Transitions {
		steps = append(steps, step{tr.From, tr.To, tr.CauseType})
		if tr.Revision != int64(n+1) || tr.At.IsZero() {
			t.Errorf("unexpected %+v", tr)
		}
	}
	want := []step{
		{"", "awaiting_payment", "saga.begin"},
		{"awaiting_payment", "paid", "payment.received"},
		{"paid", "paid", "payment.received"},
		{"paid", "shipped", "parcel.shipped"},
	}
	if !slices.Equal(steps, want) {
		t.Errorf("got %v\nwant %v", steps, want)
	}
	if id := records[0].Transitions[1].CauseID; id != event.ID {
		t.Errorf("caused by %v, want %v", id, event.ID)
	}
	if id := records[0].Transitions[0].CauseID; id != uuid.Nil {
		t.Errorf("the beginning was caused by %v", id)
	}
	if len(b.moved) != 4 || !b.moved[3].Final || b.moved[3].Age <= 0 || b.moved[1].CauseID != event.ID {
		t.Errorf("reported %+v", b.moved)
	}
}

func TestEventsWithoutTransitionAreIgnored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// An event that no state takes any more: the order is refused at once or not at all.
	d := orderSaga()
	saga.On[refused](d, "awaiting_payment", "closed", nil)
	saga.Wait[paid](d, saga.WaitPolicy{UnbegunLimit: -1})
	saga.Wait[shipped](d, saga.WaitPolicy{Limit: -1})
	s, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	b.begin(t, s, "o1", order{})
	for _, step := range []struct {
		event  rocketflow.Payload
		reason saga.IgnoredReason
		state  string
	}{
		{paid{"stranger", 1}, saga.NoSaga, ""},
		{paid{"", 1}, saga.NoKey, ""},
		{paid{strings.Repeat("x", 256), 1}, saga.NoKey, ""},
		{shipped{"p", ""}, saga.NoKey, ""},
		{shipped{"p", "o1"}, saga.NoTransition, "awaiting_payment"}, // early, and its type doesn't wait
		{paid{"o1", 1}, "", ""},
		{refused{"o1"}, saga.NoTransition, "paid"},
		{shipped{"p", "o1"}, "", ""},
		{paid{"o1", 1}, saga.Finished, "shipped"},
	} {
		b.ignored = nil
		e, err := newEvent(step.event)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.handle(e); err != nil {
			t.Fatalf("%+v: %v", step.event, err)
		}
		switch {
		case step.reason == "" && len(b.ignored) > 0:
			t.Errorf("%+v was ignored: %+v", step.event, b.ignored)
		case step.reason != "" && (len(b.ignored) != 1 || b.ignored[0].Reason != step.reason || b.ignored[0].State != step.state):
			t.Errorf("%+v: got %+v, want %q", step.event, b.ignored, step.reason)
		}
	}
	if len(b.waits) > 0 {
		t.Errorf("%+v wait", b.waits)
	}
}

func TestFailedTransitionHasNoEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	b.begin(t, s, "o1", order{})
	if _, err := b.send(paid{"o1", -1}); !errors.Is(err, errBoom) {
		t.Fatalf("got %v, want the function's error", err)
	}
	e, _ := wire.NewEvent(paid{"o1", 1})
	e.Body = []byte("{")
	if _, err := b.handle(e); !errors.Is(err, rocketflow.ErrUndecodable) {
		t.Fatalf("got %v, want ErrUndecodable", err)
	}
	i, err := s.Get(t.Context(), b.pool, "o1")
	if err != nil || i.State != "awaiting_payment" || i.Revision != 1 {
		t.Errorf("got %+v, %v", i, err)
	}
	if got := b.armed(t, "order/o1"); len(got) != 1 {
		t.Errorf("armed: %v", got)
	}
}

func TestBeginStoresOneSaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	b.begin(t, s, "o1", order{})
	err := within(ctx, b.pool, func(tx *testdb.Tx) error {
		err := s.Begin(ctx, tx, "o1", order{PayBy: time.Now()})
		if !errors.Is(err, saga.ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
		for _, key := range []string{"", "a\nb", strings.Repeat("x", 256), "\xff"} {
			var field *rocketflow.FieldError
			if err := s.Begin(ctx, tx, key, order{PayBy: time.Now()}); !errors.As(err, &field) || field.Field != "key" {
				t.Errorf("key %q: got %v", key, err)
			}
		}
		if _, err := s.Get(ctx, tx, "o1"); err != nil { // the transaction is usable
			t.Error(err)
		}
		return s.Begin(ctx, tx, "no instant", order{})
	})
	if err == nil || !strings.Contains(err.Error(), "deadline of state awaiting_payment: the function of Deadline returned the zero time") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Get(ctx, b.pool, "no instant"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestApplyMakesTheTransitionOrFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	b.begin(t, s, "o1", order{})
	err := within(ctx, b.pool, func(tx *testdb.Tx) error {
		if err := s.Apply(ctx, tx, "o2", paid{"o2", 1}); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		err := s.Apply(ctx, tx, "o1", shipped{})
		var unexpected *saga.NotExpectedError
		if !errors.As(err, &unexpected) || unexpected.State != "awaiting_payment" || !errors.Is(err, saga.ErrNotExpected) {
			t.Errorf("got %v, want NotExpectedError", err)
		}
		if err := s.Apply(ctx, tx, "o1", paid{"elsewhere", 5}); err != nil {
			return err
		}
		if err := s.Apply(ctx, tx, "o1", shipped{}); err != nil {
			return err
		}
		err = s.Apply(ctx, tx, "o1", shipped{})
		if !errors.As(err, &unexpected) || !unexpected.Finished {
			t.Errorf("got %v, want NotExpectedError of a finished saga", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	records, err := testoperator.New(t, b.pool, b.schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
	if err != nil || len(records[0].Transitions) != 3 || records[0].Transitions[1].CauseID != uuid.Nil {
		t.Errorf("got %+v, %v", records, err)
	}
}

func TestDeadlineMovesTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	b.begin(t, s, "o1", order{PayBy: time.Now().Add(-time.Second)})
	e, err := b.deadline(ctx, "order/o1", "awaiting_payment")
	if err != nil {
		t.Fatal(err)
	}
	if e.Topic != "timeouts" || e.Type != "saga.deadline.order" || e.Subject != "o1" {
		t.Errorf("unexpected event %+v", e)
	}
	published, err := b.handle(e)
	if err != nil {
		t.Fatal(err)
	}
	if len(published) != 1 {
		t.Errorf("published %v", published)
	}
	i, err := s.Get(ctx, b.pool, "o1")
	if err != nil || i.State != "closed" || i.Data.Refunds != 1 {
		t.Errorf("got %+v, %v", i, err)
	}
	records, err := testoperator.New(t, b.pool, b.schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
	if err != nil {
		t.Fatal(err)
	}
	if last := records[0].Transitions[1]; last.CauseType != "saga.deadline.order" || last.CauseID != e.ID {
		t.Errorf("unexpected %+v", last)
	}
	if got := b.armed(t, "order/o1"); len(got) != 0 {
		t.Errorf("still armed: %v", got)
	}
	if published, err = b.handle(e); err != nil || len(published) != 0 { // a second copy
		t.Errorf("a copy published %v, %v", published, err)
	}
}

// The event of a deadline that comes too early comes again, and one that comes after the state was left has no effect.
func TestDeadlineIsNeitherEarlyNorStale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	b.begin(t, s, "o1", order{})
	e, err := b.deadline(ctx, "order/o1", "awaiting_payment")
	if err != nil {
		t.Fatal(err)
	}
	var later *rocketflow.RetryAfterError
	if _, err := b.handle(e); !errors.As(err, &later) || later.After < 59*time.Minute {
		t.Errorf("got %v, want RetryAfterError of an hour", err)
	}
	if _, err := b.send(paid{"o1", 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.handle(e); err != nil {
		t.Error(err)
	}
	if i, err := s.Get(ctx, b.pool, "o1"); err != nil || i.State != "paid" {
		t.Errorf("got %+v, %v", i, err)
	}
}

// A deadline that leads back to its own state is armed again, as for reminders.
func TestDeadlineOfItsOwnStateRecurs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	type data struct{ Reminders int }
	d := saga.Define[data]("reminder", 1).Initial("unpaid").Final("paid").
		Deadline("unpaid", "unpaid", func(s *data) time.Time { return time.Now().Add(-time.Minute) },
			func(_ context.Context, _ rocketflow.Tx, s *data) error { s.Reminders++; return nil })
	saga.On[paid](d, "unpaid", "paid", nil)
	s, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := within(ctx, b.pool, func(tx *testdb.Tx) error { return s.Begin(ctx, tx, "o1", data{}) }); err != nil {
		t.Fatal(err)
	}
	seen := map[uuid.UUID]bool{}
	for range 3 {
		e, err := b.deadline(ctx, "reminder/o1", "unpaid")
		if err != nil {
			t.Fatal(err)
		}
		seen[e.ID] = true
		for range 2 { // each twice
			if _, err := b.handle(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	i, err := s.Get(ctx, b.pool, "o1")
	if err != nil || i.Data.Reminders != 3 || len(seen) != 3 {
		t.Errorf("got %+v, %v; %d epochs", i, err, len(seen))
	}
	if _, err := b.send(paid{"o1", 1}); err != nil {
		t.Fatal(err)
	}
	if got := b.armed(t, "reminder/o1"); len(got) != 0 {
		t.Errorf("still armed: %v", got)
	}
}

func TestOneEventForSeveralSagas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	orders := registerOrder(t, b)
	d := saga.Define[order]("loyalty", 1).Initial("counting").NoDeadline("counting").Final("gold")
	saga.On(d, "counting", "counting", func(_ context.Context, _ rocketflow.Tx, o *order, p paid) error {
		o.Paid += p.Amount
		return nil
	})
	saga.On[shipped](d, "counting", "gold", nil)
	loyalty, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := saga.Register(b.Engine, orderSaga()); err == nil || !strings.Contains(err.Error(), "registered twice") {
		t.Errorf("got %v", err)
	}
	b.begin(t, orders, "o1", order{})
	b.begin(t, loyalty, "o1", order{})
	if _, err := b.send(paid{"o1", 7}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*saga.Saga[order]{orders, loyalty} {
		if i, err := s.Get(ctx, b.pool, "o1"); err != nil || i.Data.Paid != 7 {
			t.Errorf("got %+v, %v", i, err)
		}
	}
	records, err := testoperator.New(t, b.pool, b.schema).Sagas(ctx, operate.SagaFilter{Key: "o1"})
	if err != nil || len(records) != 2 || len(records[0].Transitions) != 2 || len(records[1].Transitions) != 2 {
		t.Errorf("got %+v, %v", records, err)
	}
}

func TestEventForAnotherVersionFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	b.begin(t, s, "o1", order{})
	if _, err := b.pool.Exec(t.Context(), "UPDATE saga SET version = 2"); err != nil {
		t.Fatal(err)
	}
	_, err := b.send(paid{"o1", 1})
	var version *saga.VersionError
	if !errors.As(err, &version) || version.Version != 2 || version.Known != 1 {
		t.Errorf("got %v, want VersionError", err)
	}
}

// A function that applies another event to its own saga fails: its transition would overwrite the other one.
func TestFunctionCannotChangeItsOwnSaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	var s *saga.Saga[order]
	d := saga.Define[order]("nested", 1).Initial("a").NoDeadline("a").Final("z")
	saga.On[shipped](d, "a", "z", nil)
	saga.On(d, "a", "a", func(ctx context.Context, tx rocketflow.Tx, _ *order, p paid) error {
		return s.Apply(ctx, tx, "o1", shipped{})
	})
	s, err := saga.Register(b.Engine, d)
	if err != nil {
		t.Fatal(err)
	}
	b.begin(t, s, "o1", order{})
	if _, err := b.send(paid{"o1", 1}); err == nil || !strings.Contains(err.Error(), "function changed or ended the same saga") {
		t.Errorf("got %v", err)
	}
	if i, err := s.Get(ctx, b.pool, "o1"); err != nil || i.State != "a" {
		t.Errorf("got %+v, %v", i, err)
	}
}

func TestDataIsStoredUnchanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	want := order{
		Lines: []line{{"Lampe, größer als \"normal\" \\ 灯 \u2028", 1 << 30}, {}},
		Paid:  1<<63 - 1, // more than a float holds
		PayBy: time.Date(2031, 2, 3, 4, 5, 6, 789012345, time.UTC),
		Notes: map[string]json.RawMessage{"x": json.RawMessage(`{"a": [1, null, 0.1]}`)},
	}
	b.begin(t, s, "o1", want)
	got, err := s.Get(t.Context(), b.pool, "o1")
	if err != nil || !reflect.DeepEqual(got.Data, want) {
		t.Errorf("got %+v, %v\nwant %+v", got.Data, err, want)
	}
}

func TestRetentionDeletesFinishedSagas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := registerOrder(t, b)
	ctx := t.Context()
	for _, key := range []string{"old", "new", "running"} {
		b.begin(t, s, key, order{})
		if key != "running" {
			if err := within(ctx, b.pool, func(tx *testdb.Tx) error {
				return errors.Join(s.Apply(ctx, tx, key, paid{}), s.Apply(ctx, tx, key, shipped{}))
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := b.pool.Exec(ctx, "UPDATE saga SET finished_at = now() - interval '31 days' WHERE key = 'old'"); err != nil {
		t.Fatal(err)
	}
	expired := make(chan int, 1)
	cfg := b.cfg
	cfg.Listener = saga.Tee(cfg.Listener, &saga.Listener{Expired: func(n int) { expired <- n }})
	e := b.engine(t, cfg)
	for n, step := range []func(context.Context) error{e.Stop, e.Start, e.Start, e.Stop, e.Stop, e.Start} {
		if err := step(ctx); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
	}
	select {
	case n := <-expired:
		if n != 1 {
			t.Errorf("%d expired", n)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing expired")
	}
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int{"saga": 2, "saga_history": 4} {
		var n int
		if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d rows, want %d (%v)", table, n, want, err)
		}
	}
}

func TestNewNamesTheBadField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		change func(*saga.Config)
		field  string
	}{
		{func(c *saga.Config) { c.Pool = nil }, "saga.Config.Pool"},
		{func(c *saga.Config) { c.Router = nil }, "saga.Config.Router"},
		{func(c *saga.Config) { c.Transactor = nil }, "saga.Config.Transactor"},
		{func(c *saga.Config) { c.Consumer = "" }, "saga.Config.Consumer"},
		{func(c *saga.Config) { c.RetentionInterval = -1 }, "saga.Config.RetentionInterval"},
		{func(c *saga.Config) { c.Timer = nil }, "saga.Config.Timer"},
		{func(c *saga.Config) { c.TimeoutTopic = "" }, "saga.Config.TimeoutTopic"},
	} {
		cfg := b.cfg
		cfg.Router = router{}
		c.change(&cfg)
		e, err := saga.New(cfg)
		if err == nil {
			_, err = saga.Register(e, orderSaga())
		}
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("got %v, want field %s", err, c.field)
		}
	}
}
