package handlers

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// route is what selects a handler of a consumer.
type route struct{ topic, eventType string }

// consumer is one running consumer: its lanes, its worker and its subscription.
type consumer struct {
	name     string
	cfg      *Config
	sql      queries.Set
	handlers map[route]rocketflow.HandlerFunc
	born     map[string]time.Time // when the consumer first read a topic, by Postgres' clock
	limiter  *rate.Limiter

	asker   *asker
	lanes   []*lane
	laning  sync.WaitGroup // the lanes
	working sync.WaitGroup // the worker and the asker
	retries atomic.Int64   // parked events that are with the lanes
	wake    chan struct{}  // to the worker; buffered
	resting chan struct{}  // closed: worker and asker end
	closing chan struct{}  // closed: lanes end when they have nothing left
	stopped chan struct{}  // closed: what is in hand goes back to the broker
	abandon func()         // ends the context of all that runs

	subscription broker.Consumer
	trouble      atomic.Pointer[error] // why nothing moves at present
}

func newConsumer(name string, cfg *Config, sql queries.Set, handlers map[route]rocketflow.HandlerFunc) *consumer {
	c := &consumer{
		name: name, cfg: cfg, sql: sql, handlers: handlers, born: map[string]time.Time{}, limiter: rate.NewLimiter(rate.Inf, 0),
		wake: make(chan struct{}, 1), resting: make(chan struct{}), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	c.asker = newAsker(c)
	if cfg.RateLimit > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(cfg.RateLimit), max(1, min(cfg.BatchSize, int(cfg.RateLimit/10))))
	}
	for range cfg.Lanes {
		// Room for all that can be in flight: neither the worker nor a delivery waits for a busy lane here.
		c.lanes = append(c.lanes, &lane{consumer: c, in: make(chan work, cfg.MaxInFlight+c.maxRetries())})
	}
	return c
}

// register writes down that the consumer reads its topics, and reads since when.
func (c *consumer) register(ctx context.Context) error {
	var topic string
	var born time.Time
	var q pgx.Batch
	q.Queue(c.sql.Get("InsertConsumer"), c.name)
	q.Queue(c.sql.Get("InsertConsumerTopics"), c.name, c.topics())
	q.Queue(c.sql.Get("Births"), c.name).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&topic, &born}, func() error { c.born[topic] = born; return nil })
		return err
	})
	if err := c.cfg.Pool.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("register consumer %s: %w", c.name, err)
	}
	return nil
}

func (c *consumer) topics() []string {
	set := map[string]bool{}
	for key := range c.handlers {
		set[key.topic] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// run starts the lanes and the worker. They end as drain asks.
func (c *consumer) run() {
	ctx, cancel := context.WithCancel(context.Background())
	c.abandon = cancel
	for _, l := range c.lanes {
		c.laning.Go(func() { l.run(ctx) })
	}
	c.working.Go(func() { c.work(ctx) })
	c.working.Go(func() { c.asker.run(ctx) })
}

// drain stops the worker, then the subscription, which waits for what the lanes have, then the lanes. When ctx ends
// before that they are cut off, and what they had comes again.
func (c *consumer) drain(ctx context.Context) error {
	close(c.resting)
	await(ctx, &c.working)
	var err error
	if c.subscription != nil {
		err = c.subscription.Stop(ctx)
	}
	close(c.closing)
	if !await(ctx, &c.laning) {
		err = errors.Join(err, ctx.Err())
	}
	close(c.stopped)
	c.abandon()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if !await(grace, &c.working) || !await(grace, &c.laning) {
		err = errors.Join(err, errors.New("a handler ignores that its context ended"))
	}
	if err != nil {
		return fmt.Errorf("stop consumer %s: %w", c.name, err)
	}
	return nil
}

// stopGrace is how long handlers have to return once their context has ended.
const stopGrace = 5 * time.Second

// await waits for a group, or until ctx ends.
func await(ctx context.Context, group *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *consumer) handler(e rocketflow.Event) rocketflow.HandlerFunc {
	return c.handlers[route{e.Topic, e.Type}]
}

func (c *consumer) info(e rocketflow.Event) EventInfo { return EventInfo{Consumer: c.name, Event: e} }

// lane returns the lane of an event. The ordered events of an aggregate share one across topics, and its timeouts too:
// their handlers want the same rows, and would wait for each other in different lanes, each with the rest of its batch.
func (c *consumer) lane(e rocketflow.Event) *lane {
	if e.Ordered() || e.TimeoutName != "" {
		return c.laneOf([]byte(e.Subject))
	}
	return c.laneOf(e.ID[:])
}

func (c *consumer) laneOf(key []byte) *lane {
	h := fnv.New32a()
	h.Write(key)
	return c.lanes[h.Sum32()%uint32(len(c.lanes))]
}

var errStopped = errors.New("handlers: stopped before the event was handled")

// receive is the broker's handler: it returns nil once the event is settled in Postgres, and an error only if the
// router stops before.
func (c *consumer) receive(ctx context.Context, d broker.Delivery) error {
	e, unreadable := eventOf(d)
	c.cfg.Listener.Received(ReceivedInfo{c.info(e), d.Attempt})
	it := &item{event: e, unreadable: unreadable, until: c.now().Add(c.cfg.GapWait), done: make(chan error, 1)}
	select {
	case c.lane(e).in <- work{item: it}:
	case <-c.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-it.done:
		return err
	case <-c.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// now is for what is compared with times of Postgres.
func (c *consumer) now() time.Time { return c.cfg.Clock.Now() }

// throttle waits until n more events may be handled.
func (c *consumer) throttle(ctx context.Context, n int) error {
	if c.limiter.Limit() == rate.Inf {
		return ctx.Err()
	}
	for n > 0 {
		k := min(n, c.limiter.Burst())
		if err := c.limiter.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// signal makes the worker look for what is due.
func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// err says why the consumer handles nothing at present.
func (c *consumer) err() error {
	if p := c.trouble.Load(); p != nil {
		return fmt.Errorf("consumer %s: %w", c.name, *p)
	}
	if err := c.subscription.Err(); err != nil {
		return fmt.Errorf("consumer %s: %w", c.name, err)
	}
	return nil
}

// plainly runs fn in a transaction that publishes nothing.
func (c *consumer) plainly(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return c.persist(ctx, func(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
		return pgx.BeginFunc(ctx, c.cfg.Pool, func(tx pgx.Tx) error { return fn(ctx, tx) })
	}, maxConflicts, fn)
}

// publishing runs fn, which calls handlers, in a transaction that publishes.
func (c *consumer) publishing(ctx context.Context, conflicts int, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return c.persist(ctx, func(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
		return c.cfg.Transactor.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return fn(ctx, tx) })
	}, conflicts, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, tx.(rocketflow.Tx)) })
}
