package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

// The flow is a service that makes use of all that rocketflow does with its database, to be run with databases and pools
// of all kinds.

// step is an event of a stream, or without order if it has no Key; failures is how often its handler fails.
type step struct {
	Key      string `json:"key"`
	N        int    `json:"n"`
	Failures int    `json:"failures,omitempty"`
}

func (s step) EventMeta() rocketflow.Meta {
	m := rocketflow.Meta{Topic: "steps", Type: "step.taken", Subject: s.Key}
	if s.N%2 == 0 {
		m.Headers = map[string]string{"tenant": "acme"}
	}
	return m
}

type paid struct {
	Order string `json:"order"`
}

func (p paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "steps", Type: "order.paid", Subject: p.Order}
}

type rung struct {
	Key string `json:"key"`
}

func (r rung) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "alarms", Type: "bell.rung", Subject: r.Key, Headers: map[string]string{"tenant": "acme"}}
}

type flowOrder struct {
	By time.Time `json:"by"`
}

// flow is the service while it runs.
type flow struct {
	t      *testing.T
	w      *rocketflowtest.Env
	s      *rocketflowtest.Service
	client *rocketmq.Client
	box    *outbox.Outbox
	timer  *timeout.Scheduler
	router *handlers.Router
	orders *saga.Saga[flowOrder]
}

const day = 24 * time.Hour

// newFlow runs the service on a schema that the Env has, or that migrate makes: it gets a pool to the Env's database that
// goes by its clock, and returns the service's.
func newFlow(t *testing.T, w *rocketflowtest.Env, open func(schema string) *pgxpool.Pool) *flow {
	t.Helper()
	f := &flow{t: t, w: w}
	schema := "flow_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	pool := open(schema)
	config := rocketflowfx.Config{
		Service: "shop", Schema: schema, CreateTopics: true,
		Topics: []broker.Topic{{Name: "steps", Queues: 4}, {Name: "alarms", Kind: broker.Delay}},
	}
	config.Saga.TimeoutTopic = "alarms"
	config.Handlers.Retry = handlers.RetryPolicy{Attempts: 3, Base: time.Minute, Max: time.Minute, Jitter: -1}
	f.exec("CREATE TABLE " + f.effects(schema) + " (what text NOT NULL, key text NOT NULL, n int NOT NULL DEFAULT 0)")
	f.exec("GRANT ALL ON " + f.effects(schema) + " TO PUBLIC")
	effect := func(ctx context.Context, tx rocketflow.Tx, what, key string, n int) error {
		_, err := tx.Exec(ctx, "INSERT INTO "+f.effects(schema)+" VALUES ($1::text, $2::text, $3::integer)", what, key, n)
		return err
	}
	orders := saga.Define[flowOrder]("order", 1).Initial("open").
		Deadline("open", "late", func(o *flowOrder) time.Time { return o.By }, nil).Final("paid", "late")
	saga.On[paid](orders, "open", "paid", nil)
	f.s = w.Run(rocketflowfx.Module, fx.Supply(config, pool),
		fx.Populate(&f.client, &f.box, &f.timer, &f.router),
		fx.Invoke(func(r *handlers.Router, e *saga.Engine) (err error) {
			handlers.On(r, "steps", func(ctx context.Context, tx rocketflow.Tx, s step) error {
				if handlers.Attempt(ctx) <= s.Failures {
					return errors.New("not yet")
				}
				return effect(ctx, tx, "step", s.Key, s.N)
			})
			handlers.On(r, "bells", func(ctx context.Context, tx rocketflow.Tx, b rung) error { return effect(ctx, tx, "bell", b.Key, 0) })
			f.orders, err = saga.Register(e, orders)
			return err
		}))
	return f
}

func (f *flow) effects(schema string) string {
	return pgx.Identifier{"public", schema + "_effect"}.Sanitize()
}

func (f *flow) exec(statement string) {
	f.t.Helper()
	testdb.Exec(f.t, statement)
}

// within runs a transaction of the service.
func (f *flow) within(what string, fn func(ctx context.Context, tx rocketflow.Tx) error) {
	f.t.Helper()
	if err := testdb.Retry(func() error { return f.s.Tx.Within(bounded(f.t, 20*time.Second), fn) }); err != nil {
		f.t.Fatalf("%s: %.400v", what, err)
	}
}

// publish publishes in one transaction.
func (f *flow) publish(what string, events ...rocketflow.Payload) {
	f.t.Helper()
	f.within(what, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, events...) })
}

// settle waits until no work is left.
func (f *flow) settle(after string) {
	f.t.Helper()
	if left := f.w.TrySettle(20 * time.Second); left != nil {
		f.t.Errorf("after %s: not settled: %s; Router.Err: %v", after, strings.Join(left, "; "), f.router.Err())
	}
}

// has checks how many effects there are.
func (f *flow) has(what, key string, want int) {
	f.t.Helper()
	var n int
	err := f.s.Pool.QueryRow(bounded(f.t, 10*time.Second), "SELECT pg_catalog.count(*)::integer FROM "+f.effects(f.s.Schema)+
		" WHERE what = $1::text AND (key = $2::text OR $2::text = '*')", what, key).Scan(&n)
	if err != nil || n != want {
		f.t.Errorf("%d effects of %s %s, want %d (%v)", n, what, key, want, err)
	}
}

// run does all that there is to do, and checks what came of it.
func (f *flow) run() {
	t := f.t
	t.Helper()
	defer f.exec("DROP TABLE " + f.effects(f.s.Schema))
	ctx := bounded(t, 2*time.Minute)

	f.publish("one event of a stream", step{Key: "a", N: 1})
	f.publish("several events, with headers and without order", step{Key: "a", N: 2}, step{N: 3}, step{Key: "b", N: 4}, step{N: 6})
	f.settle("publishing")
	f.has("step", "*", 5)

	var failing []rocketflow.Payload
	for i := range 30 {
		failing = append(failing, step{Key: fmt.Sprint("f-", i), N: i, Failures: 1})
	}
	f.publish("events that fail once", failing...)
	f.publish("an event that fails for good, and one behind it", step{Key: "dead", N: 1, Failures: 5}, step{Key: "dead", N: 2})
	f.publish("an event that nothing holds back", step{Key: "c", N: 1})
	f.settle("failures")
	f.has("step", "c", 1)
	f.w.FastForward(10 * time.Minute)
	f.has("step", "*", 5+30+1)
	operator := testoperator.Of(t, operate.Config{Pool: f.s.Pool, Schema: f.s.Schema, Broker: f.client})
	if dead := f.s.DeadLetters(); len(dead) != 1 {
		t.Errorf("%d dead letters, want 1", len(dead))
	}
	if n, err := operator.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: "steps", Subject: "dead"}); err != nil || n != 1 {
		t.Errorf("retry of dead letters: %d, %v", n, err)
	}
	f.w.FastForward(10 * time.Minute)
	if n, err := operator.DiscardDeadLetters(ctx, operate.ParkedFilter{Consumer: "steps"}); err != nil || n != 1 {
		t.Errorf("discard of dead letters: %d, %v", n, err)
	}
	f.w.FastForward(10 * time.Minute)
	f.has("step", "dead", 1) // the one behind it

	due := f.w.Now().Add(time.Hour)
	f.within("arm, move, disarm", func(ctx context.Context, tx rocketflow.Tx) error {
		for _, key := range []string{"fires", "moves", "goes"} {
			if err := f.timer.Arm(ctx, tx, key, "bell", due, rung{key}); err != nil {
				return fmt.Errorf("arm: %w", err)
			}
		}
		return nil
	})
	f.within("move", func(ctx context.Context, tx rocketflow.Tx) error {
		_, err := f.timer.Move(ctx, tx, "moves", "bell", due.Add(5*day))
		return err
	})
	f.within("disarm", func(ctx context.Context, tx rocketflow.Tx) error {
		_, err := f.timer.Disarm(ctx, tx, "goes", "bell")
		return err
	})
	for _, key := range []string{"paid", "late"} {
		f.within("begin a saga", func(ctx context.Context, tx rocketflow.Tx) error {
			return f.orders.Begin(ctx, tx, key, flowOrder{By: due})
		})
	}
	f.publish("an event of a saga", paid{"paid"})
	f.settle("beginning sagas")
	f.w.FastForward(2 * time.Hour)
	f.has("bell", "*", 1)
	for _, key := range []string{"paid", "late"} {
		if i, err := f.orders.Get(ctx, f.s.Pool, key); err != nil || i.State != key {
			t.Errorf("saga %s is in state %q (%v)", key, i.State, err)
		}
	}
	if history, err := operator.Sagas(ctx, operate.SagaFilter{Key: "late"}); err != nil || len(history) != 1 {
		t.Errorf("history of a saga: %v, %v", history, err)
	}

	f.w.Broker().Stop(rocketmqtest.LoseNothing)
	f.publish("while the broker is away", step{Key: "owed", N: 1}, step{N: 1})
	if n, _, err := f.box.Backlog(ctx); err != nil || n < 1 {
		t.Errorf("backlog %d, %v", n, err)
	}
	if err := f.w.Broker().Start(); err != nil {
		t.Fatal(err)
	}
	f.settle("the broker came back")
	f.has("step", "owed", 1)

	_, backlog := operator.Backlog(ctx)
	_, subject := operator.SubjectStatus(ctx, operate.SubjectFilter{Subject: "a", Topic: "steps"})
	_, timeouts := operator.Timeouts(ctx, operate.TimeoutFilter{Key: "moves"})
	_, event := operator.EventStatus(ctx, f.w.Events("step.taken")[0].ID)
	if err := errors.Join(backlog, subject, timeouts, event); err != nil {
		t.Errorf("inspect: %v", err)
	}
	if n, err := operator.Resend(ctx, operate.ResendFilter{Topic: "steps", Subject: "a"}); err != nil || n != 2 {
		t.Errorf("sent again: %d, %v; want 2", n, err)
	}
	f.settle("sending again")
	f.has("step", "a", 2)

	for range 12 { // partitions come and go, rows expire
		f.w.FastForward(4 * day)
		f.publish("in time to come", step{Key: "a", N: 9}, step{N: 9})
		f.settle("a while")
	}
	f.has("bell", "moves", 1)
	if _, err := f.orders.Get(ctx, f.s.Pool, "paid"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("a saga that ended 48 days ago: got %v, want that it is gone", err)
	}
}

// onPath returns open of newFlow: a schema of the Env's own, and a pool to it that is changed.
func onPath(t *testing.T, w *rocketflowtest.Env, change func(*pgxpool.Config)) func(schema string) *pgxpool.Pool {
	return func(schema string) *pgxpool.Pool { return testdb.Like(t, w.Database(schema), change) }
}
