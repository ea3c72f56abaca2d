package payment_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/payment"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

// shop is both services: there are no payments without orders.
type shop struct {
	*testing.T
	orders, payments *servicetest.Client
}

func open(t *testing.T) shop {
	t.Helper()
	env := servicetest.New(t)
	s := shop{t, env.Start(order.Configure, order.App), env.Start(payment.Configure, payment.App)}
	s.orders.Want(http.StatusOK, "PUT", "/stock/cup", map[string]any{"on_hand": 1000})
	return s
}

// place returns the id of an order whose charge was requested.
func (s shop) place(payWithin string) string {
	s.Helper()
	a := s.orders.Want(http.StatusCreated, "POST", "/orders",
		map[string]any{"sku": "cup", "quantity": 1, "amount_cents": 1999, "pay_within": payWithin})
	id := fmt.Sprint(a.JSON["id"])
	s.payments.WaitFor("/payments/"+id, "order_id", id)
	return id
}

func (s shop) pay(status int, id string)     { s.Helper(); s.bank(status, id, "pay") }
func (s shop) decline(status int, id string) { s.Helper(); s.bank(status, id, "decline") }

func (s shop) bank(status int, id, answer string) {
	s.Helper()
	s.payments.Want(status, "POST", "/payments/"+id+"/"+answer, nil)
}

func (s shop) want(id, orderState, reason, paymentState string) {
	s.Helper()
	s.orders.WaitFor("/orders/"+id, "state", orderState)
	s.orders.WaitFor("/orders/"+id, "reason", reason)
	a := s.payments.WaitFor("/payments/"+id, "state", paymentState)
	if want := fmt.Sprintf(`{"order_id":"%s","amount_cents":1999,"state":"%s"}`+"\n", id, paymentState); a.Text != want {
		s.Errorf("payment is %s, want %s", a.Text, want)
	}
}

func TestPayments(t *testing.T) {
	t.Parallel()
	s := open(t)
	const accepted, conflict = http.StatusAccepted, http.StatusConflict

	t.Run("in time", func(t *testing.T) {
		s := shop{t, s.orders, s.payments}
		id := s.place("1h")
		s.pay(accepted, id)
		s.want(id, "confirmed", "", "captured")
		s.pay(accepted, id)
		s.decline(conflict, id)
		s.orders.Want(conflict, "POST", "/orders/"+id+"/cancel", nil)
		s.want(id, "confirmed", "", "captured")
	})
	t.Run("declined", func(t *testing.T) {
		s := shop{t, s.orders, s.payments}
		id := s.place("1h")
		s.decline(accepted, id)
		s.want(id, "closed", "declined", "declined")
		s.decline(accepted, id)
		s.pay(conflict, id)
		s.want(id, "closed", "declined", "declined")
	})
	t.Run("late", func(t *testing.T) {
		s := shop{t, s.orders, s.payments}
		id := s.place("500ms")
		s.want(id, "closed", "timeout", "void")
		s.decline(accepted, id)
		s.pay(accepted, id)
		s.want(id, "closed", "timeout", "refunded")
		s.pay(accepted, id)
		s.decline(conflict, id)
		s.want(id, "closed", "timeout", "refunded")
	})
	t.Run("cancelled", func(t *testing.T) {
		s := shop{t, s.orders, s.payments}
		id := s.place("1h")
		s.orders.Want(http.StatusOK, "POST", "/orders/"+id+"/cancel", nil)
		s.want(id, "closed", "cancelled", "void")
	})
	t.Run("unknown", func(t *testing.T) {
		s := shop{t, s.orders, s.payments}
		id := uuid.NewString()
		s.payments.Want(http.StatusNotFound, "GET", "/payments/"+id, nil)
		s.pay(http.StatusNotFound, id)
		s.decline(http.StatusNotFound, id)
		s.pay(http.StatusNotFound, "1")
	})
	t.Run("operations", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz"} {
			s.payments.Want(http.StatusOK, "GET", path, nil)
		}
		if a := s.payments.Want(http.StatusOK, "GET", "/metrics", nil); !strings.Contains(a.Text, "rocketflow_handlers_events_total") {
			t.Errorf("metrics are %.200s", a.Text)
		}
		s.payments.WantDocumented()
	})

	// Three orders were closed and one confirmed.
	if a := s.orders.Want(http.StatusOK, "GET", "/stock/cup", nil); a.Text != `{"sku":"cup","on_hand":999,"reserved":0}`+"\n" {
		t.Errorf("stock is %s", a.Text)
	}
}
