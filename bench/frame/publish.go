package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

var callerCounts = []int{1, 8, 32}

const insertBusiness = "INSERT INTO business (account, cents) VALUES ($1, $2)"

// way is one way to change the database and tell the others.
type way struct {
	name string
	// publish makes one business transaction and its event, for an account. It calls committed, if the way has events,
	// as soon as it knows that the database committed.
	publish func(ctx context.Context, account string, cents int64) error
	close   func()
}

// published is one measurement.
type published struct {
	way     string
	callers int
	perSec  float64
	latency []time.Duration // commit to handler
}

type credited struct {
	topic   string
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"` // to make the body about 300 bytes
}

var note = strings.Repeat("x", 240)

func (c credited) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: c.topic, Type: "account.credited", Subject: c.Account}
}

func (b *bed) publishing(ctx context.Context) ([]published, error) {
	var all []published
	for round := range b.rounds {
		for _, callers := range callerCounts {
			for name, open := range map[string]func(context.Context, *stopwatch) (*way, error){
				"insert alone": b.insertAlone, "rows alone": b.rowsAlone, "gear A": b.gearA, "relay": b.relay, "by hand": b.byHand,
			} {
				if b.only != "" && b.only != name {
					continue
				}
				p, err := b.measurePublishing(ctx, open, callers)
				if err != nil {
					return nil, fmt.Errorf("round %d: %w", round+1, err)
				}
				fmt.Fprintf(os.Stderr, "round %d/%d: %-14s %2d callers %8.0f/s\n", round+1, b.rounds, p.way, callers, p.perSec)
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// stopwatch measures from the commit to the call of the handler, by the event's or message's key.
type stopwatch struct {
	committed sync.Map // key -> time.Time
	mu        sync.Mutex
	took      []time.Duration
	sent      atomic.Int64
	arrived   atomic.Int64
}

func (s *stopwatch) commit(key string) { s.committed.Store(key, time.Now()); s.sent.Add(1) }

func (s *stopwatch) arrive(key string) {
	now := time.Now()
	if at, ok := s.committed.LoadAndDelete(key); ok {
		s.mu.Lock()
		s.took = append(s.took, now.Sub(at.(time.Time)))
		s.mu.Unlock()
		s.arrived.Add(1)
	} else if key != "" {
		// It came before the committing goroutine looked at its watch.
		s.mu.Lock()
		s.took = append(s.took, 0)
		s.mu.Unlock()
		s.arrived.Add(1)
	}
}

func (b *bed) measurePublishing(ctx context.Context, open func(context.Context, *stopwatch) (*way, error), callers int) (published, error) {
	watch := &stopwatch{}
	w, err := open(ctx, watch)
	if err != nil {
		return published{}, err
	}
	defer w.close()
	var (
		done   atomic.Int64
		failed atomic.Pointer[error]
		group  sync.WaitGroup
	)
	begin := time.Now()
	for c := range callers {
		group.Go(func() {
			for i := int64(0); time.Since(begin) < b.duration && ctx.Err() == nil; i++ {
				// 64 accounts a caller: streams are shared by nobody, as orders are.
				if err := w.publish(ctx, fmt.Sprintf("account-%d-%d", c, i%64), i); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(begin)
	if err := failed.Load(); err != nil {
		return published{}, fmt.Errorf("%s: %w", w.name, *err)
	}
	// All must arrive: a way that loses is not measured. Rates are of what was committed and delivered, so a backlog
	// that is left when the callers stop counts against the way.
	deadline := time.Now().Add(60 * time.Second)
	for watch.arrived.Load() < watch.sent.Load() {
		if time.Now().After(deadline) {
			return published{}, fmt.Errorf("%s: %d of %d events arrived", w.name, watch.arrived.Load(), watch.sent.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if watch.sent.Load() > 0 {
		took = time.Since(begin)
	}
	return published{way: w.name, callers: callers, perSec: float64(done.Load()) / took.Seconds(), latency: watch.took}, nil
}

func (b *bed) insertAlone(context.Context, *stopwatch) (*way, error) {
	return &way{name: "insert alone", close: func() {}, publish: func(ctx context.Context, account string, cents int64) error {
		return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insertBusiness, account, cents)
			return err
		})
	}}, nil
}

// rowsAlone is all that happens in Postgres, with a broker that is not there: insert, sequence, row, ack.
func (b *bed) rowsAlone(ctx context.Context, _ *stopwatch) (*way, error) {
	box, err := outbox.New(outbox.Config{Pool: b.pool, Broker: nowhere{}, Source: "bench", Schema: b.schema, Gear: outbox.Relay, RelayBuffer: 1 << 20})
	if err != nil {
		return nil, err
	}
	if err := box.Start(ctx); err != nil {
		return nil, err
	}
	return &way{
		name: "rows alone",
		publish: func(ctx context.Context, account string, cents int64) error {
			return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				if _, err := tx.Exec(ctx, insertBusiness, account, cents); err != nil {
					return err
				}
				return tx.Publish(ctx, credited{topic: "nowhere", Account: account, Cents: cents, Note: note})
			})
		},
		close: func() { _ = box.Stop(ctx) },
	}, nil
}

// nowhere takes every message at once.
type nowhere struct{ outbox.Broker }

func (nowhere) Send(context.Context, broker.Message) (broker.Receipt, error) {
	return broker.Receipt{}, nil
}

func (nowhere) SendGroup(context.Context, []broker.Message) []error { return nil }

func (nowhere) Shard(string, string) int { return 0 }

func (nowhere) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (nowhere) OpenTransactor(context.Context, string, broker.Checker) (broker.Transactor, error) {
	return nowhereTransactor{}, nil
}

type nowhereTransactor struct{ broker.Transactor }

func (nowhereTransactor) Close(context.Context) error { return nil }

func (b *bed) gearA(ctx context.Context, watch *stopwatch) (*way, error) {
	return b.rocketflow(ctx, watch, "gear A", outbox.HalfMessages)
}

func (b *bed) relay(ctx context.Context, watch *stopwatch) (*way, error) {
	return b.rocketflow(ctx, watch, "relay", outbox.Relay)
}

func (b *bed) rocketflow(ctx context.Context, watch *stopwatch, name string, gear outbox.Gear) (*way, error) {
	topic, err := b.newTopic(ctx, fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		return nil, err
	}
	box, err := outbox.New(outbox.Config{
		Pool: b.pool, Broker: b.client, Source: "bench", Group: topic, Schema: b.schema, Gear: gear, RelayBuffer: 1 << 20,
		Listener: &outbox.Listener{Committed: func(events []rocketflow.Event) { watch.commit(events[0].ID.String()) }},
	})
	if err != nil {
		return nil, err
	}
	if err := box.Start(ctx); err != nil {
		return nil, err
	}
	consumer, err := b.client.Subscribe(ctx, broker.Subscription{Group: topic, Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		e, err := rocketflow.EventOf(d)
		watch.arrive(e.ID.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &way{
		name: name,
		publish: func(ctx context.Context, account string, cents int64) error {
			return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				if _, err := tx.Exec(ctx, insertBusiness, account, cents); err != nil {
					return err
				}
				return tx.Publish(ctx, credited{topic: topic, Account: account, Cents: cents, Note: note})
			})
		},
		close: func() {
			_ = consumer.Stop(ctx)
			_ = box.Stop(ctx)
		},
	}, nil
}
