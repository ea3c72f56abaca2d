package orderclose_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/orderclose"
	"github.com/rocketflow/rocketflow/examples/payment"
	"github.com/rocketflow/rocketflow/test/servicetest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestRun(t *testing.T) {
	t.Parallel()
	env := servicetest.New(t)
	orders, payments := env.Start(order.Configure, order.App), env.Start(payment.Configure, payment.App)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	s, err := orderclose.Run(ctx, orderclose.Config{
		OrderURLs: []string{orders.URL}, PaymentURLs: []string{payments.URL}, DatabaseURL: testdb.URL(t),
		OrderSchema: orders.Config.Tables, OrderRocketflowSchema: orders.Config.Schema,
		PaymentSchema: payments.Config.Tables, PaymentRocketflowSchema: payments.Config.Schema,
		Orders: 60, Out: &out,
		PayWithin: 3 * time.Second, // so that on a busy machine, too, payments are requested in time
	})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !s.OK() {
		t.Errorf("promises are broken: %+v", s)
	}
	if s.Orders != 60 || s.Confirmed+s.Closed != 60 || s.TimedOut+s.Declined+s.Cancelled != s.Closed {
		t.Errorf("orders don't add up: %+v", s)
	}
	if s.Confirmed == 0 || s.TimedOut == 0 || s.Declined == 0 || s.Cancelled == 0 || s.Refunded == 0 {
		t.Errorf("not every way was gone: %+v", s)
	}
}
