package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/migrations"
)

// Router subscribes consumers to topics and runs the handlers that are registered for their events. A consumer is a named
// set of handlers that share a group at the broker and a position in each stream; the processes that register it share its
// events. Start records the topics and types that a consumer handles, so that a process of another version, which lacks a
// handler, leaves its events to one that has it.
//
// Its methods are safe for concurrent use. Register handlers and middleware before Start.
type Router struct {
	cfg   Config
	store inbox.Store

	mu         sync.Mutex // of what is registered
	handlers   map[string]map[inbox.Route]rocketflow.HandlerFunc
	configured map[string]ConsumerConfig
	middleware []rocketflow.Middleware
	problems   []error

	background background.Group
	running    atomic.Pointer[[]*consumer] // nil: stopped
}

// New returns a Router without handlers. An error is a *rocketflow.FieldError that names a field of Config.
func New(cfg Config) (*Router, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Router{
		cfg: cfg, store: inbox.New(cfg.Schema), handlers: map[string]map[inbox.Route]rocketflow.HandlerFunc{},
		configured: map[string]ConsumerConfig{},
	}, nil
}

// On registers a handler for the payload type P. The topic and the type of its events are those that EventMeta of the zero P
// returns. The handler gets the event's body as a P; a body that can't be decoded makes the event a dead letter. Start
// returns an error if the registration is invalid.
func On[P rocketflow.Payload](r *Router, consumer string, fn func(ctx context.Context, tx rocketflow.Tx, p P) error) {
	meta, err := metaOf[P]()
	if err != nil {
		r.problem("handlers.On.payload", err.Error())
		return
	}
	r.Handle(consumer, meta.Topic, meta.Type, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		p, err := wire.DecodeBody[P](e)
		if err != nil {
			return err
		}
		return fn(ctx, tx, p)
	})
}

// metaOf returns the EventMeta of the zero P.
func metaOf[P rocketflow.Payload]() (meta rocketflow.Meta, err error) {
	var zero P
	t := reflect.TypeFor[P]()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("EventMeta of the zero %v panics: %v", t, v)
		}
	}()
	if meta = zero.EventMeta(); meta.Topic == "" || meta.Type == "" {
		return meta, fmt.Errorf("EventMeta of the zero %v has no Topic or no Type; use Router.Handle to name them", t)
	}
	return meta, nil
}

// Untagged is the type of a message that is no CloudEvent and has no tag, as the argument of [Router.Handle].
const Untagged = ""

// Handle registers a handler for events of a topic and type. The type of a message that another producer sent is its tag, or
// [Untagged]; see Other producers in the package documentation. The handler gets the event as it is; [Decode] reads its body.
// Start returns an error if the registration is invalid.
func (r *Router) Handle(consumer, topic, eventType string, fn rocketflow.HandlerFunc) {
	group := r.cfg.GroupPrefix + consumer
	switch {
	case !valid.IsGroup(consumer):
		r.problem("handlers.Router.Handle.consumer", fmt.Sprintf("%.140q: want letters, digits, _ - %% |", consumer))
		return
	case !valid.IsGroup(group):
		r.problem("handlers.Router.Handle.consumer", fmt.Sprintf("group %.140q: want at most %d bytes", group, valid.MaxGroup))
		return
	case fn == nil:
		r.problem("handlers.Router.Handle.handler", fmt.Sprintf("of %s for %s %s: missing", consumer, topic, eventType))
		return
	}
	if err := wire.Validate(rocketflow.Event{Topic: topic, Type: cmp.Or(eventType, "untagged")}); err != nil {
		var field *rocketflow.FieldError
		if errors.As(err, &field) {
			r.problem("handlers.Router.Handle."+field.Field, fmt.Sprintf("of a handler of %s: %s", consumer, field.Reason))
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handlers[consumer] == nil {
		r.handlers[consumer] = map[inbox.Route]rocketflow.HandlerFunc{}
	}
	key := inbox.Route{Topic: topic, Type: eventType}
	if r.handlers[consumer][key] != nil {
		r.problems = append(r.problems, valid.Fieldf("handlers.Router.Handle.handler", "%s has two for %s %s: give one of them a consumer name of its own", consumer, topic, eventType))
		return
	}
	r.handlers[consumer][key] = fn
}

// Subscriptions returns the groups of the registered consumers and the topics that each reads, sorted by group. The other fields are
// zero.
func (r *Router) Subscriptions() []broker.Subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []broker.Subscription
	for _, consumer := range slices.Sorted(maps.Keys(r.handlers)) {
		topics := map[string]struct{}{}
		for route := range r.handlers[consumer] {
			topics[route.Topic] = struct{}{}
		}
		all = append(all, broker.Subscription{Group: r.cfg.GroupPrefix + consumer, Topics: slices.Sorted(maps.Keys(topics))})
	}
	return all
}

// Configure sets the options of a consumer. A zero field takes the Router's value. Start returns an error if they are
// invalid.
func (r *Router) Configure(consumer string, c ConsumerConfig) {
	if err := r.cfg.consumer(c).validate(fmt.Sprintf("handlers.Router.Configure(%.140q).", consumer)); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.problems = append(r.problems, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configured[consumer] = c
}

// Use adds middleware, which wraps the handlers of all consumers, those registered before too. The first one is the outermost.
func (r *Router) Use(middleware ...rocketflow.Middleware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.middleware = append(r.middleware, middleware...)
}

// problem records an invalid registration, which Start returns as an error.
func (r *Router) problem(field, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, valid.Field(field, reason))
}

// Start subscribes all consumers, concurrently. Errors are the *rocketflow.FieldErrors of invalid registrations,
// rocketflow.ErrNotMigrated, a *rocketflow.SchemaOwnedError if the schema belongs to another service, and those of the broker
// (broker.ErrTopicNotFound, broker.ErrUnauthorized, broker.ErrUnavailable); then nothing is left running. ctx bounds the
// start only. Starting a started router does nothing.
func (r *Router) Start(ctx context.Context) error {
	err := r.background.Start(ctx, func(context.Context) error { return r.start(ctx) })
	if err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	return nil
}

func (r *Router) start(ctx context.Context) error {
	if err := migrations.Check(ctx, r.cfg.Pool, r.cfg.Schema); err != nil {
		return err
	}
	if _, err := installation.Claim(ctx, r.cfg.Pool, r.cfg.Schema, r.cfg.Source); err != nil {
		return err
	}
	consumers, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	r.checkPool(consumers)
	if err := r.makePartitions(ctx); err != nil {
		r.cfg.Logger.Warn("the inbox's partitions can't be made; rows go to its default partition, and it is tried again in 10 minutes", keyError, err)
	}
	for _, c := range consumers {
		if err := c.run(); err != nil {
			return err
		}
	}
	r.background.Go(r.runRetention)
	if err := r.subscribe(ctx, consumers); err != nil {
		return errors.Join(err, drain(ctx, consumers))
	}
	r.running.Store(&consumers)
	return nil
}

func (r *Router) subscribe(ctx context.Context, consumers []*consumer) error {
	errs := make([]error, len(consumers))
	var group sync.WaitGroup
	for i, c := range consumers {
		group.Go(func() {
			s := broker.Subscription{
				Group: r.cfg.GroupPrefix + c.name, Topics: c.topics(), MaxInFlight: c.opts.MaxInFlight, Begin: c.begin(),
			}
			subscription, err := r.cfg.Broker.Subscribe(ctx, s, c.receive)
			if errors.Is(err, broker.ErrBeginsOldest) { // events that were recorded before the Begin are skipped one by one
				s.Begin = broker.BeginOldest()
				subscription, err = r.cfg.Broker.Subscribe(ctx, s, c.receive)
			}
			if err != nil {
				errs[i] = fmt.Errorf("subscribe %s to %v: %w", s.Group, s.Topics, err)
				return
			}
			c.subscription = subscription
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// otherConnections is how many of the pool's connections the outbox, timeouts and sagas use in addition to the lanes.
const otherConnections = 6

// checkPool logs a warning if the lanes can hold all connections of the pool: everything else then waits for handlers.
func (r *Router) checkPool(consumers []*consumer) {
	lanes := 0
	for _, c := range consumers {
		lanes += c.opts.Lanes
	}
	if most := int(r.cfg.Pool.Config().MaxConns); most < lanes+otherConnections {
		r.cfg.Logger.Warn("the connection pool is small: slow handlers can hold all of its connections, and everything else then waits; raise pool_max_conns of the database's URL, or lower Lanes",
			"max_conns", most, "wanted", lanes+otherConnections, "lanes", lanes, "consumers", len(consumers))
	}
}

// prepare makes the consumers of the registered handlers.
func (r *Router) prepare(ctx context.Context) ([]*consumer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	for name := range r.configured {
		if r.handlers[name] == nil {
			return nil, valid.Fieldf("handlers.Router.Configure.consumer", "%.140q is configured and has no handler", name)
		}
	}
	stalls := &stallLog{log: r.cfg.Logger}
	var consumers []*consumer
	for _, name := range slices.Sorted(maps.Keys(r.handlers)) {
		wrapped := map[inbox.Route]rocketflow.HandlerFunc{}
		for key, fn := range r.handlers[name] {
			for _, m := range slices.Backward(r.middleware) {
				fn = m(fn)
			}
			wrapped[key] = fn
		}
		opts := r.cfg.consumer(r.configured[name])
		opts.Retry = opts.Retry.guarded(r.cfg.reporter)
		c := newConsumer(name, &r.cfg, opts, r.store, wrapped, stalls)
		if err := c.register(ctx); err != nil {
			return nil, err
		}
		consumers = append(consumers, c)
	}
	return consumers, nil
}

// Stop stops the consumers: they accept no more messages, running handlers return and their work is committed; messages that
// were received and not begun go back to the broker. When ctx ends before that, the handlers' contexts are cancelled, and
// their events are delivered again. Stopping a stopped router does nothing. It may be started again.
func (r *Router) Stop(ctx context.Context) error {
	defer r.cfg.repeated.Flush()
	return r.background.StopAfter(ctx, func(ctx context.Context) error { return drain(ctx, *r.running.Swap(nil)) })
}

// drain ends consumers concurrently.
func drain(ctx context.Context, consumers []*consumer) error {
	errs := make([]error, len(consumers))
	var group sync.WaitGroup
	for i, c := range consumers {
		group.Go(func() { errs[i] = c.drain(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// Err returns why a started router handles no events, or not all, at present: Postgres or the broker is away, or a handler
// ignores its deadline. It returns nil if there is no such reason, or if the router is not started.
func (r *Router) Err() error {
	consumers := r.running.Load()
	if consumers == nil {
		return nil
	}
	var errs []error
	for _, c := range *consumers {
		errs = append(errs, c.err())
	}
	return errors.Join(errs...)
}
