package acceptance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// The topics are drawn for each run: the topic of a payload type is that of its zero value.
var (
	orderTopic    = "acceptance-orders-" + uuid.NewString()[:8]
	deadlineTopic = orderTopic + "-deadlines"
)

// order is the data of the saga: paid before its deadline, or closed by it.
type order struct {
	Key   string    `json:"key"`
	PayBy time.Time `json:"pay_by"`
}

type payment struct {
	Key string `json:"key"`
}

func (p payment) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: orderTopic, Type: "payment.received", Subject: p.Key}
}

// outcome is the event that says how an order ended.
type outcome struct {
	Key  string `json:"key"`
	Kind string `json:"kind"`
}

func (o outcome) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: orderTopic, Type: "order.done", Subject: o.Key}
}

// registerOrders registers the saga. Both ways out leave a row and an event, nothing of which excludes the other: only
// the saga does.
func registerOrders(t *testing.T, engine *saga.Engine) *saga.Saga[order] {
	t.Helper()
	effect := func(ctx context.Context, tx rocketflow.Tx, kind, key string) error {
		if _, err := tx.Exec(ctx, "INSERT INTO effect (kind, key) VALUES ($1, $2)", kind, key); err != nil {
			return err
		}
		return tx.Publish(ctx, outcome{key, kind})
	}
	d := saga.Define[order]("order", 1).Initial("awaiting").Final("paid", "closed").
		Deadline("awaiting", "closed", func(o *order) time.Time { return o.PayBy },
			func(ctx context.Context, tx rocketflow.Tx, o *order) error { return effect(ctx, tx, "closed", o.Key) })
	saga.On(d, "awaiting", "paid", func(ctx context.Context, tx rocketflow.Tx, o *order, _ payment) error {
		return effect(ctx, tx, "paid", o.Key)
	})
	orders, err := saga.Register(engine, d)
	if err != nil {
		t.Fatal(err)
	}
	return orders
}

// TestAPaymentAndItsDeadlineNeverBothWin pays thousands of orders within 30 ms of their deadlines, many at the same time,
// with the real path between the payment and its effect. Each order ends in exactly one way.
func TestAPaymentAndItsDeadlineNeverBothWin(t *testing.T) {
	const (
		total = 2000
		wave  = 50                     // orders with the same deadline
		pace  = 430 * time.Millisecond // between the deadlines of two waves
		lead  = 3 * time.Second        // from the placing of a wave's orders to their deadline
	)
	s := setup(t)
	// Two processes, and topics that are dealt to them differently: an order's payment often comes to the one and its
	// deadline to the other.
	s.createTopic(orderTopic, 4)
	s.createTopic(deadlineTopic, 3)
	var mu sync.Mutex
	fired, disarmed, stale := map[string]int{}, map[string]int{}, map[string]int{}
	count := func(m map[string]int) func(timeout.Info) {
		return func(i timeout.Info) {
			mu.Lock()
			defer mu.Unlock()
			m[i.Key]++
		}
	}
	var box *outbox.Outbox
	var orders *saga.Saga[order]
	for range 2 {
		client := connect(t, s.nameServers)
		box = s.outbox(func(c *outbox.Config) { c.Broker = client })
		timer := s.timer(func(c *timeout.Config) {
			c.Broker, c.Listener = client, &timeout.Listener{Fired: count(fired), Disarmed: count(disarmed), Stale: count(stale)}
		})
		router := s.router(box, func(c *handlers.Config) { c.Broker, c.Lanes = client, 4 })
		router.Use(timer.Fence)
		engine, err := saga.New(saga.Config{Pool: s.pool, Schema: s.schema, Router: router, Transactor: box, Consumer: "sagas", Timer: timer, TimeoutTopic: deadlineTopic})
		if err != nil {
			t.Fatal(err)
		}
		orders = registerOrders(t, engine)
		handlers.On(router, "news", func(ctx context.Context, tx rocketflow.Tx, o outcome) error {
			_, err := tx.Exec(ctx, "INSERT INTO effect (kind, key) VALUES ('outcome ' || $1, $2)", o.Kind, o.Key)
			return err
		})
		s.start(timer, engine, router)
	}

	begun := time.Now()
	var waves errgroup.Group
	for w := range total / wave {
		deadline := begun.Add(lead + time.Duration(w)*pace)
		waves.Go(func() error {
			// Placed and paid side by side, as customers do.
			time.Sleep(time.Until(deadline.Add(-lead)))
			var customers errgroup.Group
			for i := range wave {
				key := fmt.Sprintf("order-%d-%d", w, i)
				customers.Go(func() error {
					if err := box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
						return orders.Begin(ctx, tx, key, order{key, deadline})
					}); err != nil {
						return err
					}
					time.Sleep(time.Until(deadline.Add(time.Duration(rand.Int64N(int64(60*time.Millisecond))) - 30*time.Millisecond)))
					return s.publish(box, payment{key})
				})
			}
			return customers.Wait()
		})
	}
	if err := waves.Wait(); err != nil {
		t.Fatal(err)
	}
	published := time.Since(begun)
	poll.Within(t, 60*time.Second, "all orders are finished, and their outcomes published", func() bool {
		return s.count("SELECT count(*) FROM saga WHERE finished_at IS NULL") == 0 &&
			s.count("SELECT count(DISTINCT key) FROM effect WHERE kind LIKE 'outcome %'") == total
	})
	// The payments that came too late are skipped, each in its turn.
	poll.Within(t, 30*time.Second, "the sagas have read every stream to its end", func() bool {
		return s.count(`SELECT count(*) FROM stream JOIN position p USING (source, topic, subject, sequence) WHERE p.consumer = 'sagas-order'`) == total &&
			s.count("SELECT count(*) FROM parked") == 0
	})

	for what, sql := range map[string]string{
		"orders that did not end once":             "SELECT $1 - count(*) FROM saga WHERE revision = 2 AND finished_at IS NOT NULL",
		"transitions too many":                     "SELECT count(*) - 2 * $1 FROM saga_history",
		"effects too many":                         "SELECT count(*) - $1 FROM effect WHERE kind IN ('paid', 'closed')",
		"orders with both effects, or one twice":   "SELECT count(*) FROM (SELECT FROM effect WHERE kind IN ('paid', 'closed') GROUP BY key HAVING count(*) <> 1) x WHERE $1 > 0",
		"orders whose effect is not their state's": "SELECT count(*) FROM saga g JOIN effect e USING (key) WHERE e.kind IN ('paid', 'closed') AND e.kind <> g.state AND $1 > 0",
		"outcomes published twice, or wrong":       "SELECT $1 - count(*) FROM saga g JOIN effect e USING (key) WHERE e.kind = 'outcome ' || g.state",
		"outcomes too many":                        "SELECT count(*) - $1 FROM effect WHERE kind LIKE 'outcome %'",
		"orders closed before their deadline":      "SELECT count(*) FROM saga g JOIN effect e USING (key) WHERE e.kind = 'closed' AND least(e.at, g.finished_at) < (g.data->>'pay_by')::timestamptz AND $1 > 0",
		"orders closed by something else":          "SELECT count(*) FROM saga_history WHERE (to_state = 'closed') <> (cause_type = 'saga.deadline.order') AND $1 > 0",
		"timeouts left":                            "SELECT count(*) FROM timeout WHERE $1 > 0",
	} {
		if n := s.count(sql, total); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	paid, closed := s.count("SELECT count(*) FROM saga WHERE state = 'paid'"), s.count("SELECT count(*) FROM saga WHERE state = 'closed'")
	late := s.count("SELECT count(*) FROM saga WHERE state = 'paid' AND finished_at > (data->>'pay_by')::timestamptz")
	mu.Lock()
	defer mu.Unlock()
	if len(fired) != closed || len(disarmed) != paid {
		t.Errorf("%d timeouts fired and %d were disarmed, want %d and %d", len(fired), len(disarmed), closed, paid)
	}
	for key := range disarmed {
		if fired[key] > 0 {
			t.Errorf("%s: its timeout was disarmed and fired", key)
		}
	}
	for key, n := range fired {
		if n > 1 {
			t.Errorf("%s: its timeout fired %d times", key, n)
		}
	}
	var spread string
	if err := s.pool.QueryRow(t.Context(), `SELECT round(percentile_cont(0.05) WITHIN GROUP (ORDER BY ms)) || ' to ' || round(percentile_cont(0.95) WITHIN GROUP (ORDER BY ms))
		FROM (SELECT 1000 * extract(epoch FROM recorded_at - (data->>'pay_by')::timestamptz)::float8 AS ms
			FROM outbox JOIN saga ON key = subject WHERE type = 'payment.received') x`).Scan(&spread); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d paid (%d after the deadline, before its timeout), %d closed; %d timeouts came and found themselves overtaken; "+
		"90%% of the payments recorded %s ms from the deadline; published in %v, settled %v later",
		paid, late, closed, len(stale), spread, published, time.Since(begun)-published)
	if paid < total/100 || closed < total/100 {
		t.Errorf("no race: %d paid, %d closed", paid, closed)
	}
}
