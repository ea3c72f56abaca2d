//go:build !race

package orderclose_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/orderclose"
	"github.com/rocketflow/rocketflow/examples/payment"
	"github.com/rocketflow/rocketflow/examples/service"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

// shop is both services, with a clock that the test moves.
type shop struct {
	*rocketflowtest.Env
	t        *testing.T
	orders   *order.Service
	payments *payment.Service

	order, payment *rocketflowtest.Service
	schemas        orderclose.Config
	log            *log // of the services
}

// opening has a value for each shop that is being opened. To open one takes the processor: of many at once none would start in time.
var opening = make(chan struct{}, 2)

func openShop(t *testing.T, config rocketflowtest.Config) *shop {
	t.Helper()
	opening <- struct{}{}
	defer func() { <-opening }()
	change := config.Configure
	config.Configure = func(c rocketflowfx.Config) rocketflowfx.Config {
		if c = withShortTimeouts(c); change != nil {
			c = change(c)
		}
		return c
	}
	s := &shop{Env: rocketflowtest.New(t, config), t: t, log: new(log)}
	env := servicetest.In(t, s.Env)
	logger := fx.Decorate(func(*slog.Logger) *slog.Logger { return slog.New(slog.NewTextHandler(s.log, nil)) })
	orders, orderConfig := env.Run(withFewConnections(order.Configure), order.App, fx.Populate(&s.orders), logger)
	payments, paymentConfig := env.Run(withFewConnections(payment.Configure), payment.App, fx.Populate(&s.payments), logger)
	s.order, s.payment = orders, payments
	s.schemas = orderclose.Config{
		OrderSchema: orderConfig.Tables, OrderRocketflowSchema: orderConfig.Schema,
		PaymentSchema: paymentConfig.Tables, PaymentRocketflowSchema: paymentConfig.Schema,
	}
	return s
}

// withShortTimeouts shortens the waits for a broker that doesn't respond, which go by the machine's time.
func withShortTimeouts(c rocketflowfx.Config) rocketflowfx.Config {
	c.Outbox.HalfTimeout, c.Outbox.EndTimeout = 120*time.Millisecond, 150*time.Millisecond
	c.RocketMQ.SendTimeout, c.Timeout.SendTimeout = 200*time.Millisecond, 200*time.Millisecond
	return c
}

// withFewConnections makes a service use few connections, as there are many services, and not wait for the disk.
func withFewConnections(configure configure) configure {
	return func(getenv func(string) string) (service.Config, error) {
		c, err := configure(getenv)
		if err == nil {
			c.Database.MaxConns = 8
			c.Database.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
		}
		return c, err
	}
}

type configure = func(getenv func(string) string) (service.Config, error)

// log keeps what was written since the last call of take.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// stock creates an article of which there is enough for all orders.
func (s *shop) stock(sku string) {
	s.t.Helper()
	if _, err := s.orders.PutStock(s.t.Context(), sku, orderclose.OnHand); err != nil {
		s.t.Fatal(err)
	}
}

// bounded bounds a request, to which the services respond with or without faults.
func (s *shop) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// settle moves the clock until nothing is outstanding.
func (s *shop) settle() error {
	const (
		look  = 200 * time.Millisecond
		limit = 60 * time.Second
	)
	end := time.Now().Add(limit)
	for {
		left := s.TrySettle(look)
		if left == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not settled after %v: %s", limit, strings.Join(left, "; "))
		}
		s.Advance(time.Second)
	}
}

// check returns which promises are broken for orders that are final, and for the articles that only they are of.
func (s *shop) check(orders []uuid.UUID, skus ...string) (broken []string, summary orderclose.Summary) {
	wrong := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	var ids []string
	for _, id := range orders {
		ids = append(ids, id.String())
	}
	ctx, cancel := s.bounded()
	defer cancel()
	summary, err := orderclose.Verify(ctx, s.schemas, s.pool(), ids, skus)
	if err != nil {
		wrong("%v", err)
	}
	if !summary.OK() {
		wrong("%v %v", summary, summary.Broken)
	}
	for _, service := range []*rocketflowtest.Service{s.order, s.payment} {
		for _, dead := range service.DeadLetters() {
			wrong("%s gave up %s of %s: %s", service.Name, dead.Event.Type, dead.Event.Subject, dead.LastError)
		}
	}
	return broken, summary
}

func (s *shop) pool() *pgxpool.Pool { return s.order.Pool }

// cut cuts a service off from the broker until heal is called.
func (s *shop) cut(service string, outage rocketmqtest.Outage) (heal func()) {
	return s.Broker().Partition(func(client string) bool { return strings.Contains(client, service) }, outage)
}
