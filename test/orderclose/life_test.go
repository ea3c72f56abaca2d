//go:build !race

package orderclose_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// within is the time to pay.
const within = 2 * time.Minute

// life runs one order, which nobody pays, from its placing to its close.
type life struct {
	*shop
	t   *testing.T
	id  uuid.UUID
	sku string
}

func newLife(t *testing.T, s *shop) *life {
	l := &life{shop: s, t: t, id: uuid.New()}
	l.sku = "article-" + l.id.String()
	s.stock(l.sku)
	return l
}

func (l *life) begin() error {
	ctx, cancel := l.bounded()
	defer cancel()
	_, err := l.place(ctx, l.id, l.sku, 3, within)
	return err
}

func (l *life) mustBegin() {
	l.t.Helper()
	if err := l.begin(); err != nil {
		l.t.Fatal(err)
	}
}

// at makes the broker hold the first request that matches, while fn runs, and calls disturb meanwhile.
func (l *life) at(match func(rocketmqtest.Request) bool, fn func() error, disturb func()) {
	l.t.Helper()
	caught, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	remove := l.Broker().Control(func(r rocketmqtest.Request) (a rocketmqtest.Action) {
		if match(r) {
			once.Do(func() {
				close(caught)
				a = rocketmqtest.HoldUntil(released)
			})
		}
		return a
	})
	defer remove()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case <-caught:
	case <-time.After(20 * time.Second):
		l.t.Fatal("the request didn't come")
	}
	disturb()
	close(released)
	if err := <-done; err != nil {
		l.t.Error(err)
	}
}

// handling blocks the payment service's handler while disturb is called.
func (l *life) handling(disturb func()) {
	l.t.Helper()
	ctx, cancel := l.bounded()
	defer cancel()
	conn, err := pgx.Connect(ctx, l.DatabaseURL()) // of no service's pool, as a service may be stopped meanwhile
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE "+l.schemas.PaymentSchema+".payments IN SHARE MODE"); err != nil {
		l.t.Fatal(err)
	}
	l.mustBegin()
	for waits := false; !waits; {
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass)",
			l.schemas.PaymentSchema+".payments").Scan(&waits)
		if err != nil {
			l.t.Fatal("the handler doesn't come: ", err)
		}
	}
	l.Advance(time.Second) // what is stored is on the disk
	disturb()
}

// end moves the clock until the order is closed, and checks the promises.
func (l *life) end() {
	l.t.Helper()
	for _, jump := range []time.Duration{0, within} {
		l.Advance(jump)
		if err := l.settle(); err != nil {
			l.t.Fatalf("%v\n%v%s", err, l.Broker().Dump(), l.log.take())
		}
	}
	broken, summary := l.check([]uuid.UUID{l.id}, l.sku)
	if summary.TimedOut != 1 {
		broken = append(broken, "the order isn't closed by its deadline")
	}
	if len(broken) > 0 {
		l.t.Errorf("%s\n%v%s", strings.Join(broken, "\n"), l.Broker().Dump(), l.log.take())
	}
}

// isHalf matches half messages of the order service.
func isHalf(r rocketmqtest.Request) bool {
	return strings.HasPrefix(r.Name, "SEND_") && r.Properties["TRAN_MSG"] == "true"
}

// isPlain matches messages that are visible at once.
func isPlain(r rocketmqtest.Request) bool {
	return strings.HasPrefix(r.Name, "SEND_") && r.Properties["TRAN_MSG"] != "true" && !isTimer(r)
}

func isTimer(r rocketmqtest.Request) bool { return r.Properties["TIMER_DELIVER_MS"] != "" }

func isEnd(r rocketmqtest.Request) bool { return r.Name == "END_TRANSACTION" }

func isCheck(r rocketmqtest.Request) bool { return r.Name == "CHECK_TRANSACTION_STATE" }

func isEither(matches ...func(rocketmqtest.Request) bool) func(rocketmqtest.Request) bool {
	return func(r rocketmqtest.Request) bool {
		for _, match := range matches {
			if match(r) {
				return true
			}
		}
		return false
	}
}

// hook decides what happens to each request before the broker gets it.
type hook = func(rocketmqtest.Request) rocketmqtest.Action

// always applies an action to all requests that match, once to the first of them.
func always(match func(rocketmqtest.Request) bool, a rocketmqtest.Action) hook {
	return func(r rocketmqtest.Request) rocketmqtest.Action {
		if match(r) {
			return a
		}
		return rocketmqtest.Pass
	}
}

func once(match func(rocketmqtest.Request) bool, a rocketmqtest.Action) hook {
	var first sync.Once
	return func(r rocketmqtest.Request) (done rocketmqtest.Action) {
		if match(r) {
			first.Do(func() { done = a })
		}
		return done
	}
}
