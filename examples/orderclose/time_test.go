package orderclose_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/payment"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

// shop is both services in a world whose clock the test moves.
type shop struct {
	*rocketflowtest.Env
	orders, payments *servicetest.Client
}

func openShop(t *testing.T) shop {
	t.Helper()
	w := rocketflowtest.New(t)
	env := servicetest.In(t, w)
	s := shop{w, env.Start(order.Configure, order.App), env.Start(payment.Configure, payment.App)}
	s.orders.Want(http.StatusOK, "PUT", "/stock/cup", map[string]any{"on_hand": 10})
	return s
}

// place places an order that wants to be paid within half an hour.
func (s shop) place() (id string) {
	a := s.orders.Want(http.StatusCreated, "POST", "/orders", map[string]any{"sku": "cup", "quantity": 2, "amount_cents": 1999, "pay_within": "30m"})
	s.Settle()
	return fmt.Sprint(a.JSON["id"])
}

func (s shop) want(t *testing.T, id, state, reason, paid string) {
	t.Helper()
	o := s.orders.Want(http.StatusOK, "GET", "/orders/"+id, nil)
	p := s.payments.Want(http.StatusOK, "GET", "/payments/"+id, nil)
	if o.JSON["state"] != state || o.JSON["reason"] != reason || p.JSON["state"] != paid {
		t.Errorf("order is %s, payment %s; want %s %q, %s", o.Text, p.Text, state, reason, paid)
	}
}

func (s shop) wantReserved(t *testing.T, n float64) {
	t.Helper()
	if a := s.orders.Want(http.StatusOK, "GET", "/stock/cup", nil); a.JSON["reserved"] != n {
		t.Errorf("stock is %s, want %v reserved", a.Text, n)
	}
}

// TestUnpaidOrdersCloseAfterHalfAnHour is the life of orders whose customers have half an hour, in a moment.
func TestUnpaidOrdersCloseAfterHalfAnHour(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	unpaid, paid, late := s.place(), s.place(), s.place()
	s.want(t, unpaid, order.Pending, "", payment.Requested)
	s.wantReserved(t, 6)

	s.FastForward(29 * time.Minute)
	s.want(t, unpaid, order.Pending, "", payment.Requested)
	s.payments.Want(http.StatusAccepted, "POST", "/payments/"+paid+"/pay", nil)
	s.Settle()
	s.want(t, paid, order.Confirmed, "", payment.Captured)

	began := time.Now()
	s.FastForward(2 * time.Minute)
	t.Logf("the close of the others took %v", time.Since(began))
	s.want(t, unpaid, order.Closed, string(contracts.Timeout), payment.Void)
	s.want(t, paid, order.Confirmed, "", payment.Captured)
	s.wantReserved(t, 0)

	s.payments.Want(http.StatusAccepted, "POST", "/payments/"+late+"/pay", nil)
	s.Settle()
	s.want(t, late, order.Closed, string(contracts.Timeout), payment.Refunded)
	if n := len(rocketflowtest.Events[contracts.OrderClosed](s.Env)); n != 2 {
		t.Errorf("%d orders closed, want 2", n)
	}
}
