package orderclose

import (
	"cmp"
	"io"
	"time"

	"github.com/rocketflow/rocketflow"
)

// Config configures Run.
type Config struct {
	OrderURLs   []string // base URLs of the order service's processes; required
	PaymentURLs []string // and of the payment service's; required
	DatabaseURL string   // where both keep their tables; required

	// Schemas of the two services: their own tables and rocketflow's.
	// Defaults to those of the services.
	OrderSchema, OrderRocketflowSchema     string
	PaymentSchema, PaymentRocketflowSchema string

	Orders    int           // Defaults to 300.
	Customers int           // how many act at a time. Defaults to 48.
	PayWithin time.Duration // the shortest time to pay; the longest is three times that. Defaults to 1 s.
	Patience  time.Duration // how long to wait for outstanding events after the last customer. Defaults to 40 s.

	Began time.Time // the beginning for the reported time of the first close. Defaults to the call of Run.

	Halfway func() // called when half of the orders are placed. Defaults to nothing.

	Out io.Writer // progress and result. Defaults to nowhere.
}

func (c Config) withDefaults() Config {
	c.OrderSchema = cmp.Or(c.OrderSchema, "orders")
	c.OrderRocketflowSchema = cmp.Or(c.OrderRocketflowSchema, "order_rocketflow")
	c.PaymentSchema = cmp.Or(c.PaymentSchema, "payments")
	c.PaymentRocketflowSchema = cmp.Or(c.PaymentRocketflowSchema, "payment_rocketflow")
	c.Orders = cmp.Or(c.Orders, 300)
	c.Customers = cmp.Or(c.Customers, 48)
	c.PayWithin = cmp.Or(c.PayWithin, time.Second)
	c.Patience = cmp.Or(c.Patience, 40*time.Second)
	if c.Began.IsZero() {
		c.Began = time.Now()
	}
	if c.Halfway == nil {
		c.Halfway = func() {}
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	return c
}

func (c Config) validate() error {
	bad := func(field, reason string) error {
		return &rocketflow.FieldError{Field: "orderclose.Config." + field, Reason: reason}
	}
	switch {
	case len(c.OrderURLs) == 0:
		return bad("OrderURLs", "missing")
	case len(c.PaymentURLs) == 0:
		return bad("PaymentURLs", "missing")
	case c.DatabaseURL == "":
		return bad("DatabaseURL", "missing")
	case c.Orders < 1:
		return bad("Orders", "want at least 1")
	case c.Customers < 1:
		return bad("Customers", "want at least 1")
	case c.PayWithin < time.Millisecond:
		return bad("PayWithin", "want at least 1ms")
	}
	return nil
}
