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

// resendFlow is two services, of which one requests missing events of the other, and what it has handled.
type resendFlow struct {
	*rocketflowtest.Env
	shop, office *rocketflowtest.Service

	mu      sync.Mutex
	handled []string
	resends []outbox.ResentInfo
}

// newResendFlow starts a shop that publishes events of parcels, and an office that handles them.
func newResendFlow(t *testing.T, edit func(*rocketflowfx.Config), restart rocketmqtest.Config) *resendFlow {
	r := &resendFlow{Env: rocketflowtest.New(t, rocketflowtest.Config{Broker: restart})}
	config := rocketflowfx.Config{Service: "shop", Topics: []broker.Topic{{Name: "parcels", Queues: 2}}}
	config.Outbox.Listener = &outbox.Listener{Resent: func(i outbox.ResentInfo) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.resends = append(r.resends, i)
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

// ship publishes events of one stream, each in a transaction of its own.
func (r *resendFlow) ship(from, to int) {
	for i := from; i <= to; i++ {
		r.shop.Publish(parcel(i))
	}
}

func parcel(i int) rocketflow.Payload { return numbered{"p", i} }

// numbered returns an event of one stream whose parcel contains a number.
type numbered struct {
	subject string
	n       int
}

func (n numbered) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.shipped", Subject: n.subject}
}

func (n numbered) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `{"parcel":"%d"}`, n.n), nil }

// loseEnds makes the broker confirm the commits of half messages and forget them, while fn runs. Its check-backs are answered
// with a rollback, as the publisher has the acknowledgement.
func (r *resendFlow) loseEnds(fn func()) {
	defer r.Broker().Control(func(q rocketmqtest.Request) rocketmqtest.Action {
		if q.Name == "END_TRANSACTION" {
			return rocketmqtest.Respond(0, "")
		}
		return rocketmqtest.Pass
	})()
	fn()
}

// want fails the test unless exactly the events of these numbers were handled, in order.
func (r *resendFlow) want(t *testing.T, from, to int) {
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

// The broker confirms an event and loses it. The next event of the stream shows the gap, and the consumer requests what it
// misses.
func TestLostMessageIsResent(t *testing.T) {
	t.Parallel()
	r := newResendFlow(t, func(*rocketflowfx.Config) {}, rocketmqtest.Config{})
	r.ship(1, 2)
	r.Settle()
	r.loseEnds(func() { r.ship(3, 5) })
	r.ship(6, 6)
	r.want(t, 1, 6)
}

// The broker loses all that it had confirmed, as when its disk is lost and Postgres is kept. What a stopped consumer has not
// handled of a stream is resent when the stream goes on.
func TestLostDiskIsResent(t *testing.T) {
	t.Parallel()
	r := newResendFlow(t, func(*rocketflowfx.Config) {}, rocketmqtest.Config{FlushInterval: 24 * time.Hour})
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
	if len(r.resends) == 0 {
		t.Error("no listener was called for the resend")
	}
}

// A publisher resends a bounded number of events for a request: the consumer repeats the request until it has all.
func TestResendIsBounded(t *testing.T) {
	t.Parallel()
	r := newResendFlow(t, func(c *rocketflowfx.Config) { c.Outbox.ResendLimit = 60 }, rocketmqtest.Config{FlushInterval: 24 * time.Hour})
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
	for _, i := range r.resends {
		if i.Sent > 60 || i.Err != nil || i.Gone {
			t.Errorf("resendFlow %+v", i)
		}
	}
}

// Where no publisher responds to requests, the events behind a gap wait, other streams go on, and nothing fails.
func TestGapWithoutResend(t *testing.T) {
	t.Parallel()
	r := newResendFlow(t, func(c *rocketflowfx.Config) { c.Outbox.ResendRate = -1 }, rocketmqtest.Config{})
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
