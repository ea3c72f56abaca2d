package handlers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// consumer is one running consumer: its subscription, the queue of what was delivered, and its lanes.
type consumer struct {
	name     string
	cfg      *Config
	opts     ConsumerConfig
	store    inbox.Consumer
	handlers map[inbox.Route]rocketflow.HandlerFunc
	limiter  *rate.Limiter

	topicsRead map[string]inbox.Topic
	missed     []inbox.Route // registered by another version of the program, but not here

	queue    *queue
	requests *missingRequester
	retries  atomic.Int64                 // parked events that the queue or a lane has
	pauses   atomic.Pointer[inbox.Pauses] // as findDue has seen them last; nil: not yet
	wake     chan struct{}                // to findDue; buffered

	finding  background.Group // loops that find due events, request missing ones and end the waits of early ones; stops first
	lanes    sync.WaitGroup   // they end when the queue is closed
	handling background.Group // the handlers' calls; its context is that of the lanes; stops last
	ended    <-chan struct{}  // closed: deliveries that aren't settled go back to the broker

	unresponsive unresponsive
	subscription broker.Consumer
	laneStall    stall // of the lanes
	findStall    stall // of findDue
	stalls       *stallLog
}

func newConsumer(name string, cfg *Config, opts ConsumerConfig, store inbox.Store, handlers map[inbox.Route]rocketflow.HandlerFunc, stalls *stallLog) *consumer {
	c := &consumer{
		name: name, cfg: cfg, opts: opts, store: store.Consumer(name), handlers: handlers, stalls: stalls, topicsRead: map[string]inbox.Topic{},
		limiter: rate.NewLimiter(rate.Inf, 0), queue: newQueue(opts.Lanes),
		wake: make(chan struct{}, 1),
	}
	c.requests = newMissingRequester(c)
	c.laneStall.consumer, c.findStall.consumer = c, c
	if opts.RateLimit > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(opts.RateLimit), max(1, min(opts.BatchSize, int(opts.RateLimit/10))))
	}
	return c
}

// register records the routes that the consumer has handlers for, and reads where it begins in its topics and which routes
// other versions of the program have recorded.
func (c *consumer) register(ctx context.Context) error {
	var from *time.Time
	if at, ok := c.opts.Begin.Time(); ok {
		from = &at
	}
	topics, recorded, err := c.store.Register(ctx, lazytx.On(c.cfg.Pool), inbox.Registration{
		Group:          c.cfg.GroupPrefix + c.name,
		InboxRetention: c.cfg.InboxRetention, PositionRetention: c.cfg.PositionRetention,
		Routes: c.routes(), BeginNow: c.opts.Begin.Newest(), BeginAt: from,
	})
	if err != nil {
		return err
	}
	c.topicsRead, c.missed = topics, nil
	for _, r := range recorded {
		if c.handlers[r] == nil {
			c.missed = append(c.missed, r)
		}
	}
	for _, r := range c.missed {
		c.cfg.Logger.Warn("a handler that was registered before is missing in this process, so its events wait for a process that has it; if the handler was removed for good, retire it with `rocketflow redrive retire`",
			keyConsumer, c.name, keyTopic, r.Topic, keyType, r.Type)
	}
	return nil
}

// routes lists the topics and types that the consumer has handlers for in this process.
func (c *consumer) routes() []inbox.Route { return slices.Collect(maps.Keys(c.handlers)) }

func (c *consumer) topics() []string {
	set := map[string]bool{}
	for key := range c.handlers {
		set[key.Topic] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// beginMargin is how much earlier than the consumer the broker begins: the broker goes by the time when it stored a message,
// the consumer by the time when the event was recorded. The consumer skips older events.
const beginMargin = 10 * time.Minute

// begin returns where the consumer's group begins if it is new at the broker.
func (c *consumer) begin() broker.Begin {
	var first time.Time
	for _, topic := range c.topics() {
		at := c.topicsRead[topic].Begin
		if at.IsZero() {
			return broker.BeginOldest()
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return broker.BeginAt(first.Add(-beginMargin))
}

// run starts the consumer's goroutines. drain ends them.
func (c *consumer) run() error {
	return c.handling.Start(context.Background(), func(handling context.Context) error {
		c.ended = handling.Done()
		return c.finding.Start(context.Background(), func(context.Context) error {
			for range c.opts.Lanes {
				c.lanes.Go(func() { (&lane{consumer: c, size: newBatchSize(c.opts.BatchSize)}).run(handling) })
			}
			c.finding.Go(func(stopping context.Context) { c.findDue(stopping, handling) })
			c.finding.Go(c.requests.run)
			return nil
		})
	})
}

// drain ends the consumer: it waits for running handlers and commits their turns; deliveries that were not begun go back to
// the broker. When ctx ends before that, the handlers' contexts are cancelled, and their events are delivered again.
func (c *consumer) drain(ctx context.Context) error {
	_ = c.finding.Stop(ctx) // the parked events that it has taken are in the queue, or due again
	var err error
	if e := c.putBack(ctx, c.queue.close(), 0); e != nil {
		c.cfg.Logger.Warn("parked events that this process took could not be released; they are due again when their claim expires", keyConsumer, c.name, keyError, logText(e))
	}
	if c.subscription != nil {
		err = errors.Join(err, c.subscription.Stop(ctx))
	}
	err = errors.Join(err, background.Wait(ctx, &c.lanes))
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.unresponsiveAfter+stopGrace)
	defer cancel()
	if errors.Join(c.handling.Stop(grace), c.finding.Stop(grace), background.Wait(grace, &c.lanes)) != nil {
		err = errors.Join(err, c.unresponsive.err(), errUnresponsive)
	}
	if err != nil {
		return fmt.Errorf("stop consumer %s: %w", c.name, err)
	}
	return nil
}

// isStopping reports whether the consumer must not begin anything new.
func (c *consumer) isStopping() bool { return !c.finding.Running() }

// stopGrace is how long the goroutines have to end once handlers have returned or were abandoned.
const stopGrace = time.Second

func (c *consumer) handler(e rocketflow.Event) rocketflow.HandlerFunc { return c.handlers[routeOf(e)] }

func (c *consumer) info(e rocketflow.Event) EventInfo { return EventInfo{Consumer: c.name, Event: e} }

// receive is called by the broker for each message. It returns nil once the event is settled in Postgres, and an error only
// if the router stops before that.
func (c *consumer) receive(ctx context.Context, d broker.Delivery) error {
	e, err := decode(d)
	c.cfg.Listener.Received(ReceivedInfo{c.info(e), d.Attempt})
	it := &item{event: e, unreadable: err, done: make(chan error, 1)}
	if !c.queue.add(it) {
		return errStopped
	}
	ticker := time.NewTicker(busyAfter)
	defer ticker.Stop()
	for {
		select {
		case err := <-it.done:
			return err
		case <-c.ended:
			return errStopped
		case <-ctx.Done():
			c.queue.withdraw(it)
			return ctx.Err()
		case <-ticker.C:
		}
		// Events that wait for a slow handler move to Postgres, so that they don't take the room of other aggregates' events.
		if c.laneStall.err() == nil && c.queue.divert(it, c.share()) {
			return c.parkBusy(ctx, it)
		}
	}
}

// share returns how many deliveries may wait in memory for one slow handler, such that with slow handlers in all lanes half of
// MaxInFlight remains.
func (c *consumer) share() int { return max(1, c.opts.MaxInFlight/(2*c.opts.Lanes)) }

// now returns the time by Config.Clock.
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

// signal makes findDue look again at once.
func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// err returns why the consumer handles no events, or not all, at present; nil if it works.
func (c *consumer) err() error {
	err := errors.Join(c.laneStall.err(), c.findStall.err(), c.unresponsive.err())
	if c.subscription != nil {
		err = errors.Join(err, c.subscription.Err())
	}
	if err != nil {
		return fmt.Errorf("consumer %s: %w", c.name, err)
	}
	return nil
}
