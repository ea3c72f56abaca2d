//go:build !race

package rocketflowfx_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// refilled is a world whose services can be asked, and what one of them has seen.
type refilled struct {
	*rocketflowtest.Env
	shop, office *rocketflowtest.Service

	mu      sync.Mutex
	handled []string
	refills []outbox.ResentInfo
}

// refillWorld has a shop that ships parcels, and an office that hears of them.
func refillWorld(t *testing.T, edit func(*rocketflowfx.Config), restart rocketmqtest.Config) *refilled {
	r := &refilled{Env: rocketflowtest.New(t, rocketflowtest.Config{Broker: restart})}
	config := rocketflowfx.Config{Service: "shop", Topics: []broker.Topic{{Name: "parcels", Queues: 2}}}
	config.Outbox.Listener = &outbox.Listener{Resent: func(i outbox.ResentInfo) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.refills = append(r.refills, i)
	}}
	edit(&config)
	r.shop = r.Start(config, fx.Invoke(func(*outbox.Outbox) {}))
	r.office = r.Start(rocketflowfx.Config{Service: "office", Topics: config.Topics}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "office", func(_ context.Context, tx rocketflow.Tx, p Shipped) error {
			tx.AfterCommit(func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.handled = append(r.handled, p.Parcel)
			})
			return nil
		})
	}))
	return r
}

// ship publishes events of one stream, each by itself.
func (r *refilled) ship(from, to int) {
	for i := from; i <= to; i++ {
		r.shop.Publish(parcel(i))
	}
}

func parcel(i int) rocketflow.Payload { return numbered{"p", i} }

// numbered is a Shipped whose parcel tells its number, of one stream.
type numbered struct {
	subject string
	n       int
}

func (n numbered) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.shipped", Subject: n.subject}
}

func (n numbered) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `{"parcel":"%d"}`, n.n), nil }

// loseEnds has the broker confirm the commits of half messages and forget them, while fn runs. When it asks what became of
// them they are rolled back: they are out, as far as the publisher knows.
func (r *refilled) loseEnds(fn func()) {
	defer r.Broker().Control(func(q rocketmqtest.Request) rocketmqtest.Action {
		if q.Name == "END_TRANSACTION" {
			return rocketmqtest.Respond(0, "")
		}
		return rocketmqtest.Pass
	})()
	fn()
}

// want fails unless exactly the events of the numbers were handled, in order.
func (r *refilled) want(t *testing.T, from, to int) {
	t.Helper()
	var want []string
	for i := from; i <= to; i++ {
		want = append(want, fmt.Sprint(i))
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		r.mu.Lock()
		handled := slices.Clone(r.handled)
		r.mu.Unlock()
		if slices.Equal(handled, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("handled %v, want %v", handled, want)
		}
		r.FastForward(5 * time.Second) // to the next look at the gap
	}
}

// TestLostMessage has the broker confirm an event and forget it. What is shipped next shows the gap.
func TestLostMessage(t *testing.T) {
	t.Parallel()
	r := refillWorld(t, func(*rocketflowfx.Config) {}, rocketmqtest.Config{})
	r.ship(1, 2)
	r.Settle()
	r.loseEnds(func() { r.ship(3, 5) })
	r.ship(6, 6)
	r.want(t, 1, 6)
}

// TestLostDisk takes from the broker all that it had confirmed, as a power failure does, or a broker that begins anew
// beside a Postgres that was kept. What a stopped consumer has not seen of a stream comes back when the stream goes on.
func TestLostDisk(t *testing.T) {
	t.Parallel()
	r := refillWorld(t, func(*rocketflowfx.Config) {}, rocketmqtest.Config{FlushInterval: 24 * time.Hour})
	r.ship(1, 2)
	r.Settle()
	r.office.Stop()
	r.ship(3, 120)
	r.Settle()
	r.RestartBroker(rocketmqtest.LoseUnflushed)
	r.office.Start()
	r.ship(121, 123)
	r.want(t, 1, 123)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refills) == 0 {
		t.Error("nobody was told that events were sent again")
	}
}

// TestRefillIsBounded has a publisher send little for a question: the consumer asks again until it has all.
func TestRefillIsBounded(t *testing.T) {
	t.Parallel()
	r := refillWorld(t, func(c *rocketflowfx.Config) { c.Outbox.ResendLimit = 60 }, rocketmqtest.Config{FlushInterval: 24 * time.Hour})
	r.ship(1, 1)
	r.Settle()
	r.office.Stop()
	r.ship(2, 200)
	r.Settle()
	r.RestartBroker(rocketmqtest.LoseUnflushed)
	r.office.Start()
	r.ship(201, 202)
	r.want(t, 1, 202)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.refills {
		if i.Sent > 60 || i.Err != nil || i.Gone {
			t.Errorf("refilled %+v", i)
		}
	}
}

// TestRefillOff: with nobody who answers a gap is what it was: events wait, others
// are not touched, nothing fails.
func TestRefillOff(t *testing.T) {
	t.Parallel()
	r := refillWorld(t, func(c *rocketflowfx.Config) { c.Outbox.ResendRate = -1 }, rocketmqtest.Config{})
	r.ship(1, 1)
	r.Settle()
	r.loseEnds(func() { r.ship(2, 2) })
	r.ship(3, 3)
	r.shop.Publish(numbered{"q", 4})
	r.FastForward(time.Minute)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.handled, []string{"1", "4"}) {
		t.Errorf("handled %v", r.handled)
	}
}
