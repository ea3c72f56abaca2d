package saga_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// An operator applies events to a saga: the one that its state accepts at once, and one that came early when its state has come.
func TestOperatorAppliesEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := register(t, b, stages(nil))
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop(context.Background()) })
	beginSteps(t, b, s, "4711")
	o := testoperator.New(t, b.pool, b.schema)
	ctx := operate.WithActor(t.Context(), operate.Actor{Name: "maria", Reason: "the warehouse has lost it"})
	pay, err := o.ApplyToSaga(ctx, operate.SagaEvent{Saga: "stages", Key: "4711", Topic: paid{}.EventMeta().Topic, Type: paid{}.EventMeta().Type, Body: []byte(`{"order_id":"4711","amount":7}`)})
	if err != nil {
		t.Fatal(err)
	}
	if w := b.waiting(t, operate.WaitingFilter{Key: "4711"}); len(w) != 1 || w[0].Event.ID != pay {
		t.Errorf("waiting: %+v", w)
	}
	reserve, err := o.ApplyToSaga(ctx, operate.SagaEvent{Saga: "stages", Key: "4711", Topic: "stock", Type: "stock.reserved", Body: []byte(`{"OrderID":"4711"}`)})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "both are applied", func() bool { return get(t, b, s, "4711").State == "paid" })
	if notes := get(t, b, s, "4711").Data.Notes; !slices.Equal(notes, []string{"reserved", "paid 7"}) {
		t.Errorf("notes: %v", notes)
	}
	sagas, err := o.Sagas(ctx, operate.SagaFilter{Key: "4711"})
	if err != nil || len(sagas) != 1 || len(sagas[0].Transitions) != 3 || sagas[0].Transitions[1].CauseID != reserve || len(sagas[0].Waiting) != 0 {
		t.Errorf("sagas: %+v, %v", sagas, err)
	}
	audit, err := o.Audit(ctx, operate.AuditFilter{ID: reserve.String()})
	if err != nil || len(audit) != 1 || audit[0].Actor != "maria" || string(audit[0].Before) != `{"state":"awaiting_stock"}` {
		t.Errorf("audit: %+v, %v", audit, err)
	}
	if _, err := o.ApplyToSaga(ctx, operate.SagaEvent{Saga: "stages", Key: "4712", Topic: "stock", Type: "stock.reserved"}); !errors.Is(err, operate.ErrUnknownSaga) {
		t.Errorf("unknown saga: %v", err)
	}
	// An event with an id is applied once, and to the revision that its sender has seen.
	again := operate.SagaEvent{Saga: "stages", Key: "4713", Topic: "stock", Type: "stock.reserved", Body: []byte(`{"OrderID":"4713"}`), EventID: uuid.New(), Revision: 7}
	beginSteps(t, b, s, "4713")
	if _, err := o.ApplyToSaga(ctx, again); !errors.Is(err, operate.ErrSagaChanged) {
		t.Errorf("another revision: %v", err)
	}
	again.Revision = get(t, b, s, "4713").Revision
	if id, err := o.ApplyToSaga(ctx, again); err != nil || id != again.EventID {
		t.Errorf("applied %s: %v", id, err)
	}
	if _, err := o.ApplyToSaga(ctx, again); !errors.Is(err, operate.ErrEventApplied) {
		t.Errorf("a second time: %v", err)
	}
	poll.Until(t, "it is applied", func() bool { return get(t, b, s, "4713").State != "awaiting_stock" })
	if _, err := o.ApplyToSaga(ctx, again); !errors.Is(err, operate.ErrEventApplied) {
		t.Errorf("after it was applied: %v", err)
	}
	if notes := get(t, b, s, "4713").Data.Notes; !slices.Equal(notes, []string{"reserved"}) {
		t.Errorf("notes: %v", notes)
	}
	var field *rocketflow.FieldError
	for _, bad := range []operate.SagaEvent{
		{Key: "4711", Topic: "stock", Type: "x"}, {Saga: "stages", Topic: "stock", Type: "x"}, {Saga: "stages", Key: "4711", Type: "x"},
		{Saga: "stages", Key: "4711", Topic: "stock"}, {Saga: "stages", Key: "4711", Topic: "stock", Type: "x", Wait: -1},
		{Saga: "stages", Key: "4711", Topic: "stock", Type: "x", Body: make([]byte, 5<<20)}, {Saga: "stages", Key: "4711", Topic: "stock", Type: "x", Revision: -1},
	} {
		if _, err := o.ApplyToSaga(context.WithoutCancel(ctx), bad); !errors.As(err, &field) {
			t.Errorf("%+v: %v", bad.Type, err)
		}
	}
}
