// The client that package rocketmq drives has data races of its own when members of a group come and go.
//go:build !race

package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// BenchmarkThousandPerSecond lets b.N timeouts come due at 1,000 a second, and reports how late they are by the clock of
// Postgres: "sent" when the broker has stored the event, "fired" when the fence admits it in the handler's transaction. The
// broker is embedded and has no timers (RocketMQ 4.9), or has timers with a precision of 100 ms (5.3). "old snapshot" is with a
// transaction that has been open for five minutes at this rate: Postgres can't clean up what has fired since.
//
//	bin/rocketflow dev --no-fsync -- go test -run '^$' -bench ThousandPerSecond -benchtime 20000x ./timeout
func BenchmarkThousandPerSecond(b *testing.B) {
	for name, c := range map[string]struct {
		version rocketmqtest.Version
		dead    int // timeouts that have fired, and that Postgres can't clean up
		idle    int // schedulers of other processes
	}{
		"Postgres":              {version: rocketmqtest.RocketMQ49},
		"Postgres/4 schedulers": {version: rocketmqtest.RocketMQ49, idle: 3},
		"Postgres/old snapshot": {version: rocketmqtest.RocketMQ49, dead: 300_000},
		"Broker":                {version: rocketmqtest.RocketMQ53},
	} {
		b.Run(name, func(b *testing.B) {
			mq := rocketmqtest.RunT(b, rocketmqtest.Config{Version: c.version, TimerPrecision: 100 * time.Millisecond})
			thousandPerSecond(b, mq.Addr(), c.dead, c.idle)
		})
	}
}

func thousandPerSecond(b *testing.B, nameServer string, dead, idle int) {
	ctx := b.Context()
	pool, schema := testdb.Migrated(b)
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{nameServer}, Service: "timeout-bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	const topic = "alarms"
	if err := client.CreateTopics(ctx, broker.Topic{Name: topic, Kind: broker.Delay}); err != nil {
		b.Fatal(err)
	}
	var sent, fired latenesses
	var early, copies atomic.Int64
	done := make(chan struct{}, b.N)
	listener := &timeout.Listener{
		HandedOver: func(i timeout.Info) {
			if i.Late > 0 {
				sent.add(i)
			}
		},
		Recovered: func(timeout.Info) { copies.Add(1) },
		TooEarly:  func(timeout.Info) { early.Add(1) },
		Fired:     func(i timeout.Info) { fired.add(i); done <- struct{}{} },
	}
	newScheduler := func() *timeout.Scheduler {
		s, err := timeout.New(timeout.Config{Pool: pool, Broker: client, Schema: schema, Source: "bench", Listener: listener})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	s := newScheduler()
	lead := 5*time.Second + time.Duration(dead)*30*time.Microsecond
	arming := max(time.Duration(b.N)*time.Millisecond, time.Second) // at 1,000 a second, too
	begin := time.Now().Add(arming + lead)
	var group errgroup.Group
	group.SetLimit(8)
	for first := 0; first < b.N; first += 100 {
		group.Go(func() error {
			return within(ctx, pool, func(tx rocketflow.Tx) error {
				for n := first; n < min(first+100, b.N); n++ {
					at := begin.Add(time.Duration(n) * time.Millisecond)
					if err := s.Arm(ctx, tx, uuid.NewString(), "alarm", at, alarm{fmt.Sprint(n), topic}); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	if dead > 0 {
		if _, err := pool.Exec(ctx, `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
			SELECT 'fired' || n, 'alarm', gen_random_uuid(), t, t, 'bench', 'alarms', 'alarm', '', '', ''
			FROM generate_series(1, $1::int) n, LATERAL (SELECT now() - n * interval '1 ms' AS t) x`, dead); err != nil {
			b.Fatal(err)
		}
		tx, err := pool.Begin(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "SELECT count(*) FROM timeout"); err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(ctx, "DELETE FROM timeout WHERE key LIKE 'fired%'"); err != nil {
			b.Fatal(err)
		}
	}
	if left := time.Until(begin); left < time.Second {
		b.Fatalf("armed too late: %v left", left)
	}
	schedulers := []*timeout.Scheduler{s}
	for range idle {
		schedulers = append(schedulers, newScheduler())
	}
	for _, s := range schedulers {
		if err := s.Start(ctx); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = s.Stop(context.Background()) }()
	}
	h := s.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil })
	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: "bench", Topics: []string{topic}, MaxInFlight: 8}, func(_ context.Context, d broker.Delivery) error {
		e, err := wire.EventOf(d)
		if err != nil {
			return err
		}
		return handle(pool, h, e)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = consumer.Stop(context.Background()) }()
	for range b.N {
		select {
		case <-done:
		case <-time.After(time.Minute):
			b.Fatal("not all fired")
		}
	}
	for name, l := range map[string]*latenesses{"sent": &sent, "fired": &fired} {
		for quantile, share := range map[string]float64{"p50": 0.5, "p99": 0.99, "max": 1} {
			b.ReportMetric(float64(l.quantile(share))/1e6, name+"-"+quantile+"-ms")
		}
	}
	b.ReportMetric(float64(early.Load()), "early")
	b.ReportMetric(float64(copies.Load()), "copies")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEnds measures the transactions in which a timeout ends, each after the one that arms it: by its event, by Disarm, by Move and
// Disarm. All run one after the other on one connection; pg-us/op is the CPU time of its server process, where Linux tells it: it depends
// less on what else the machine does.
//
//	bin/rocketflow dev --no-fsync -- go test -run '^$' -bench Ends -benchtime 3000x ./timeout
func BenchmarkEnds(b *testing.B) {
	for name, end := range map[string]func(ctx context.Context, s *timeout.Scheduler, tx rocketflow.Tx, key string) error{
		"armed alone": func(context.Context, *timeout.Scheduler, rocketflow.Tx, string) error { return nil },
		"disarmed": func(ctx context.Context, s *timeout.Scheduler, tx rocketflow.Tx, key string) error {
			_, err := s.Disarm(ctx, tx, key, "alarm")
			return err
		},
		"moved": func(ctx context.Context, s *timeout.Scheduler, tx rocketflow.Tx, key string) error {
			_, err := s.Move(ctx, tx, key, "alarm", time.Now().Add(48*time.Hour))
			return err
		},
		"replaced": func(ctx context.Context, s *timeout.Scheduler, tx rocketflow.Tx, key string) error {
			return s.Arm(ctx, tx, key, "alarm", time.Now().Add(48*time.Hour), alarm{key, "alarms"})
		},
		"fired": func(ctx context.Context, s *timeout.Scheduler, tx rocketflow.Tx, key string) error {
			a, _, err := s.Get(ctx, tx, key, "alarm")
			if err != nil {
				return err
			}
			a.Event.Database, err = databaseID(ctx, tx)
			if err != nil {
				return err
			}
			return s.Fence(func(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil })(ctx, tx, a.Event)
		},
	} {
		b.Run(name, func(b *testing.B) {
			ctx := b.Context()
			pool, schema := testdb.Migrated(b)
			if _, err := partition.Ensure(ctx, pool, partition.Table{Schema: schema, Name: "timeout_history"}, time.Now(), 7); err != nil { // as a service does
				b.Fatal(err)
			}
			s, err := timeout.New(timeout.Config{Pool: pool, Broker: &fakeBroker{horizon: time.Hour}, Schema: schema, Source: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			due := 24 * time.Hour
			if name == "fired" {
				due = -time.Hour
			}
			before := serverCPU(b, pool)
			b.ResetTimer()
			for n := range b.N {
				key := fmt.Sprint("order-", n)
				err := errors.Join(
					within(ctx, pool, func(tx rocketflow.Tx) error {
						return s.Arm(ctx, tx, key, "alarm", time.Now().Add(due), alarm{key, "alarms"})
					}),
					within(ctx, pool, func(tx rocketflow.Tx) error { return end(ctx, s, tx, key) }),
				)
				if err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64((serverCPU(b, pool)-before).Nanoseconds())/1e3/float64(b.N), "pg-us/op")
		})
	}
}

// serverCPU returns the CPU time that the server process of an idle pool's connection has taken; 0: it can't be read.
func serverCPU(b *testing.B, pool *pgxpool.Pool) time.Duration {
	b.Helper()
	var pid int
	if err := pool.QueryRow(b.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0
	}
	var spent int64
	if _, err := fmt.Sscan(string(text), &spent); err != nil {
		return 0
	}
	return time.Duration(spent)
}

func databaseID(ctx context.Context, tx rocketflow.Tx) (id string, err error) {
	return id, tx.QueryRow(ctx, "SELECT id::text FROM installation").Scan(&id)
}
