package acceptance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// TestOrdersCloseOnTimeWithoutBrokerTimers runs two processes on a RocketMQ 4.9, which delivers timers at once. Orders that nobody
// pays are closed by their deadlines: soon after, and never before. The process that sends the deadlines stops halfway, and the
// broker is away for a second.
func TestOrdersCloseOnTimeWithoutBrokerTimers(t *testing.T) {
	const (
		total = 600
		pace  = 15 * time.Millisecond // between two deadlines
		lead  = 4 * time.Second       // until the first
		away  = 6 * time.Second       // after the beginning, the broker is away for a second
	)
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ49})
	s := setup(t, mq.Addr())
	for topic, queues := range map[string]int{orderTopic: 4, deadlineTopic: 3} {
		if err := s.client.CreateTopics(t.Context(), broker.Topic{Name: topic, Queues: queues}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var early, fired int
	listener := &timeout.Listener{
		TooEarly: func(timeout.Info) { mu.Lock(); defer mu.Unlock(); early++ },
		Fired:    func(timeout.Info) { mu.Lock(); defer mu.Unlock(); fired++ },
	}
	var boxes []*outbox.Outbox
	var timers []*timeout.Scheduler
	var orders *saga.Saga[order]
	for range 2 {
		client := connect(t, s.nameServers)
		box := s.outbox(func(c *outbox.Config) { c.Broker = client })
		timer := s.timer(func(c *timeout.Config) { c.Broker, c.Listener = client, listener })
		router := s.router(box, func(c *handlers.Config) { c.Broker = client })
		router.Use(timer.Fence)
		engine, err := saga.New(saga.Config{Pool: s.pool, Schema: s.schema, Router: router, Transactor: box, Consumer: "sagas", Timer: timer, TimeoutTopic: deadlineTopic})
		if err != nil {
			t.Fatal(err)
		}
		orders = registerOrders(t, engine)
		s.start(timer, engine, router)
		boxes, timers = append(boxes, box), append(timers, timer)
	}
	begun := time.Now()
	var placing errgroup.Group
	placing.SetLimit(4)
	for n := range total {
		placing.Go(func() error {
			key := fmt.Sprintf("order-%s", uuid.NewString())
			deadline := begun.Add(lead + time.Duration(n)*pace)
			box := boxes[n%2]
			if err := box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
				return orders.Begin(ctx, tx, key, order{key, deadline})
			}); err != nil || n%3 > 0 {
				return err
			}
			return s.publish(box, payment{key}) // every third is paid
		})
	}
	if err := placing.Wait(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(begun.Add(away)))
	mq.Stop(0)
	time.Sleep(time.Second)
	if err := mq.Start(); err != nil {
		t.Fatal(err)
	}
	if err := timers[0].Stop(bounded(t, 15*time.Second)); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 90*time.Second, "all orders are done", func() bool { return s.count("SELECT count(*) FROM saga WHERE finished_at IS NULL") == 0 })
	for what, sql := range map[string]string{
		"orders that were not paid and not closed": "SELECT $1 * 2 / 3 - count(*) FROM saga WHERE state = 'closed'",
		"orders closed before their deadline":      "SELECT count(*) FROM saga g JOIN effect e USING (key) WHERE e.kind = 'closed' AND least(e.at, g.finished_at) < (g.data->>'pay_by')::timestamptz AND $1 > 0",
		"orders with both effects, or one twice":   "SELECT count(*) FROM (SELECT FROM effect WHERE kind IN ('paid', 'closed') GROUP BY key HAVING count(*) <> 1) x WHERE $1 > 0",
		"timeouts left":                            "SELECT count(*) FROM timeout WHERE $1 > 0",
	} {
		if n := s.count(sql, total); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	var p50, p99 float64
	if err := s.pool.QueryRow(t.Context(), `SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
		FROM (SELECT 1000 * extract(epoch FROM e.at - (g.data->>'pay_by')::timestamptz)::float8 AS ms
			FROM saga g JOIN effect e USING (key) WHERE e.kind = 'closed') x`).Scan(&p50, &p99); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed: p50 %.0f ms after the deadline, p99 %.0f ms, with the broker away for a second", p50, p99)
	if p50 > 2000 {
		t.Errorf("half of the orders were closed more than %.0f ms after their deadline", p50)
	}
	mu.Lock()
	defer mu.Unlock()
	if fired != total*2/3 || early > 0 {
		t.Errorf("%d timeouts fired, want %d; %d came early", fired, total*2/3, early)
	}
}
