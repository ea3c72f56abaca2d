package rocketflowtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

type stocked struct {
	ID string `json:"id"`
}

func (s stocked) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.stocked", Subject: s.ID}
}

type paidFor struct {
	ID string `json:"id"`
}

func (p paidFor) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.paid", Subject: p.ID}
}

// purchase waits for the stock, then for the payment, and is closed an hour later without it.
func purchase(env *rocketflowtest.Env) *saga.Definition[parcel] {
	d := saga.Define[parcel]("purchase", 1)
	d.Initial("awaiting_stock").NoDeadline("awaiting_stock").Final("paid", "closed")
	d.Deadline("awaiting_payment", "closed", func(*parcel) time.Time { return env.Now().Add(time.Hour) }, nil)
	saga.On[stocked](d, "awaiting_stock", "awaiting_payment", nil)
	saga.On[paidFor](d, "awaiting_payment", "paid", nil)
	return d
}

func startPurchase(env *rocketflowtest.Env, d *saga.Definition[parcel], options ...fx.Option) (*rocketflowtest.Service, *saga.Saga[parcel]) {
	var s *saga.Saga[parcel]
	config := rocketflowfx.Config{Service: "shop", Topics: topics}
	config.Saga.TimeoutTopic = "order-timeouts"
	options = append(options, fx.Provide(func(e *saga.Engine) (*saga.Saga[parcel], error) { return saga.Register(e, d) }), fx.Populate(&s))
	return env.Start(config, options...), s
}

// TestEarlyEventWaitsForItsState publishes the payment before the stock, in one stream: the payment is applied after the
// stock.
func TestEarlyEventWaitsForItsState(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	service, purchases := startPurchase(env, purchase(env))
	service.Within(func(ctx context.Context, tx rocketflow.Tx) error { return purchases.Begin(ctx, tx, "o-1", parcel{}) })
	service.Publish(paidFor{"o-1"})
	env.Settle()
	service.Publish(stocked{"o-1"})
	env.FastForward(2 * time.Hour)
	if is := service.Saga("purchase", "o-1"); is.State != "paid" {
		t.Errorf("paid, and went %v", is.States)
	}
}

// TestWaitingEventExpires publishes an event for a saga that never begins: it waits for a day, is kept as expired for a
// month, and is then deleted.
func TestWaitingEventExpires(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	service, _ := startPurchase(env, purchase(env))
	service.Publish(paidFor{"o-1"})
	list := func() []operate.WaitingEvent {
		all, err := testoperator.New(t, service.Pool, service.Schema).WaitingEvents(t.Context(), operate.WaitingFilter{Key: "o-1"})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	env.FastForward(23 * time.Hour)
	if all := list(); len(all) != 1 || all[0].Status != operate.WaitingForState || all[0].Event.Type != "order.paid" {
		t.Errorf("after 23 h: %+v", all)
	}
	env.FastForward(2 * time.Hour)
	if all := list(); len(all) != 1 || all[0].Status != operate.WaitingExpired {
		t.Errorf("after 25 h: %+v", all)
	}
	env.FastForward(32 * 24 * time.Hour)
	poll.Until(t, "none is left after a month", func() bool { return len(list()) == 0 }) // Settle does not wait for retention
}

// TestSagaBegunByAnotherConsumer begins sagas in another consumer's handler; the events that the sagas wait for follow
// immediately in the stream.
func TestSagaBegunByAnotherConsumer(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var purchases *saga.Saga[parcel]
	service, purchases := startPurchase(env, purchase(env), fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "starter", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
			return purchases.Begin(ctx, tx, p.ID, parcel{})
		})
	}))
	const n = 40
	for i := range n {
		id := fmt.Sprint("o-", i)
		service.Publish(placed{id}, stocked{id})
		service.Publish(paidFor{id})
	}
	env.Settle()
	for i := range n {
		if is := service.Saga("purchase", fmt.Sprint("o-", i)); is.State != "paid" {
			t.Errorf("o-%d went %v", i, is.States)
		}
	}
}

// TestSettleWaitsForWaitingEvents lets more events wait than one transaction applies: Settle returns when all are applied.
func TestSettleWaitsForWaitingEvents(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	d := saga.Define[parcel]("collect", 1)
	d.Initial("awaiting_stock").NoDeadline("awaiting_stock", "collecting").Final("closed")
	saga.On[placed](d, "collecting", "closed", nil)
	saga.On[stocked](d, "awaiting_stock", "collecting", nil)
	saga.On(d, "collecting", "collecting", func(_ context.Context, _ rocketflow.Tx, p *parcel, _ paidFor) error {
		p.Weight++
		return nil
	})
	service, collections := startPurchase(env, d)
	service.Within(func(ctx context.Context, tx rocketflow.Tx) error { return collections.Begin(ctx, tx, "o-1", parcel{}) })
	const n = 100
	for range n {
		service.Publish(paidFor{"o-1"})
	}
	env.Settle()
	service.Publish(stocked{"o-1"})
	env.Settle()
	i, err := collections.Get(t.Context(), service.Pool, "o-1")
	if err != nil || i.Data.Weight != n {
		t.Errorf("%v of %d payments, %v", i.Data.Weight, n, err)
	}
}

// TestSagaBegunByEvent begins a saga with its first event.
func TestSagaBegunByEvent(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	d := purchase(env)
	saga.StartOn(d, func(context.Context, rocketflow.Tx, placed) (parcel, error) { return parcel{Weight: 3}, nil })
	service, _ := startPurchase(env, d)
	service.Publish(placed{"o-1"}, stocked{"o-1"}, paidFor{"o-1"})
	env.Settle()
	if is := service.Saga("purchase", "o-1"); !slices.Equal(is.States, []string{"awaiting_stock", "awaiting_payment", "paid"}) {
		t.Errorf("went %v", is.States)
	}
}

// TestSagasOfOneEventAreIndependent has one of two sagas discard an event: the other applies it.
func TestSagasOfOneEventAreIndependent(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	refuses := saga.Define[parcel]("audit", 1).Initial("open").NoDeadline("open").Final("end")
	saga.On(refuses, "open", "end", func(context.Context, rocketflow.Tx, *parcel, stocked) error {
		return handlers.Discard(errors.New("not for me"))
	})
	var audits *saga.Saga[parcel]
	service, purchases := startPurchase(env, purchase(env), fx.Invoke(func(e *saga.Engine) (err error) {
		audits, err = saga.Register(e, refuses)
		return err
	}))
	service.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		return errors.Join(purchases.Begin(ctx, tx, "o-1", parcel{}), audits.Begin(ctx, tx, "o-1", parcel{}))
	})
	service.Publish(stocked{"o-1"})
	env.Settle()
	if is := service.Saga("purchase", "o-1"); is.State != "awaiting_payment" {
		t.Errorf("purchase went %v", is.States)
	}
	if is := service.Saga("audit", "o-1"); is.State != "open" {
		t.Errorf("audit went %v", is.States)
	}
}

// TestWaitingEventIsDiscardedOrDead has the function of a waiting event discard it, or return handlers.Dead.
func TestWaitingEventIsDiscardedOrDead(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	d := saga.Define[parcel]("strict", 1)
	d.Initial("awaiting_stock").NoDeadline("awaiting_stock", "awaiting_payment").Final("paid")
	saga.On[stocked](d, "awaiting_stock", "awaiting_payment", nil)
	saga.On(d, "awaiting_payment", "paid", func(_ context.Context, _ rocketflow.Tx, _ *parcel, p paidFor) error {
		if p.ID == "discarded" {
			return handlers.Discard(errors.New("no such order"))
		}
		return handlers.Dead(errors.New("no such order"))
	})
	service, purchases := startPurchase(env, d)
	for _, key := range []string{"discarded", "dead"} {
		service.Within(func(ctx context.Context, tx rocketflow.Tx) error { return purchases.Begin(ctx, tx, key, parcel{}) })
		service.Publish(paidFor{key}, stocked{key})
	}
	env.Settle()
	left, err := testoperator.New(t, service.Pool, service.Schema).WaitingEvents(t.Context(), operate.WaitingFilter{})
	if err != nil || len(left) != 1 || left[0].Key != "dead" || left[0].Status != operate.WaitingFailed {
		t.Errorf("waiting: %+v, %v", left, err)
	}
	for _, key := range []string{"discarded", "dead"} {
		if is := service.Saga("strict", key); is.State != "awaiting_payment" {
			t.Errorf("%s went %v", key, is.States)
		}
	}
}

// TestTimeoutBecomesOneDeadLetter has the event of a timeout become a dead letter: further copies of the event do not add
// another.
func TestTimeoutBecomesOneDeadLetter(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var timer *timeout.Scheduler
	s := env.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, fx.Populate(&timer), fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "orders", func(context.Context, rocketflow.Tx, overdue) error {
			return handlers.Dead(errors.New("no such order"))
		})
	}))
	s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		return timer.Arm(ctx, tx, "o-1", "fee", env.Now().Add(time.Minute), overdue{"o-1"})
	})
	for range 12 {
		env.FastForward(10 * time.Minute)
	}
	if dead := s.DeadLetters(); len(dead) != 1 {
		t.Errorf("dead letters: %v", dead)
	}
}
