package handlers

import (
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
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/migrations"
)

// Router gives events to handlers. Each consumer is a group at the broker, named after the service and the consumer:
// processes that register it share its events. What a consumer handles is recorded at Start, so that a process of another
// version, which lacks a handler, leaves its events to one that has it. Its methods are safe for concurrent use; handlers
// and middleware are registered before Start.
type Router struct {
	cfg   Config
	store inbox.Store

	mu         sync.Mutex // of what is registered
	handlers   map[string]map[inbox.Route]rocketflow.HandlerFunc
	configured map[string]ConsumerConfig
	middleware []rocketflow.Middleware
	problems   []error

	lifecycle sync.Mutex // held while starting and stopping; before mu
	running   atomic.Pointer[running]
}

// running is what Start started.
type running struct {
	consumers []*consumer
	cancel    context.CancelFunc // of the retention
	retention sync.WaitGroup
}

// New returns a Router that is to be given handlers and started. It returns a *rocketflow.FieldError for a Config that
// can't be used.
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

// On registers a handler for the payload type P: topic and type are those that its zero value tells. What can't be
// registered is reported by Start.
func On[P rocketflow.Payload](r *Router, consumer string, fn func(ctx context.Context, tx rocketflow.Tx, p P) error) {
	meta, err := metaOf[P]()
	if err != nil {
		r.problem("payload", err.Error())
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

// metaOf asks the zero value of P.
func metaOf[P rocketflow.Payload]() (meta rocketflow.Meta, err error) {
	var zero P
	t := reflect.TypeFor[P]()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("EventMeta of the zero %v panics: %v", t, v)
		}
	}()
	if meta = zero.EventMeta(); meta.Topic == "" || meta.Type == "" {
		return meta, fmt.Errorf("the zero %v tells no Topic and Type; use Router.Handle to name them", t)
	}
	return meta, nil
}

// Handle registers a handler for events of a topic and type. A message that some other producer sent has its tag for a
// type. What can't be registered is reported by Start.
func (r *Router) Handle(consumer, topic, eventType string, fn rocketflow.HandlerFunc) {
	group := r.cfg.GroupPrefix + consumer
	switch {
	case !isGroup(consumer):
		r.problem("consumer", fmt.Sprintf("%.140q: want letters, digits, _ - %% |", consumer))
		return
	case !isGroup(group):
		r.problem("consumer", fmt.Sprintf("group %.140q: want at most %d bytes", group, maxGroup))
		return
	case fn == nil:
		r.problem("handler", fmt.Sprintf("of %s for %s %s: missing", consumer, topic, eventType))
		return
	}
	if err := wire.Validate(rocketflow.Event{Topic: topic, Type: eventType}); err != nil {
		var field *rocketflow.FieldError
		if errors.As(err, &field) {
			r.problem(field.Field, fmt.Sprintf("of a handler of %s: %s", consumer, field.Reason))
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
		r.problems = append(r.problems, valid.Fieldf("handler", "%s has two for %s %s: give one of them a consumer name of its own", consumer, topic, eventType))
		return
	}
	r.handlers[consumer][key] = fn
}

// Configure sets the options of a consumer; what is zero takes the Router's. What can't be used is reported by Start.
func (r *Router) Configure(consumer string, c ConsumerConfig) {
	if err := r.cfg.consumer(c).validate("handlers.ConsumerConfig of " + fmt.Sprintf("%.140q", consumer) + ": "); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.problems = append(r.problems, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configured[consumer] = c
}

// Use wraps all handlers, those registered before too. The first registered is the outermost.
func (r *Router) Use(middleware ...rocketflow.Middleware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.middleware = append(r.middleware, middleware...)
}

func (r *Router) problem(field, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, valid.Field(field, reason))
}

// Start subscribes all consumers, side by side. It returns what was registered wrongly, ErrNotMigrated, a
// *SchemaOwnedError if the schema is another service's, and the broker's reasons (ErrTopicNotFound, ErrUnauthorized,
// ErrUnavailable); nothing runs then. ctx bounds the start only. Started twice it does nothing.
func (r *Router) Start(ctx context.Context) error {
	r.lifecycle.Lock()
	defer r.lifecycle.Unlock()
	if r.running.Load() != nil {
		return nil
	}
	if err := migrations.Check(ctx, r.cfg.Pool, r.cfg.Schema); err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	if _, err := installation.Claim(ctx, r.cfg.Pool, r.cfg.Schema, r.cfg.Source); err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	consumers, err := r.prepare(ctx)
	if err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	r.checkPool(consumers)
	if err := r.makePartitions(ctx); err != nil {
		r.cfg.Logger.Warn("can't make the inbox's partitions; its default one takes their rows", keyError, err)
	}
	background, cancel := context.WithCancel(context.Background())
	run := &running{consumers: consumers, cancel: cancel}
	for _, c := range consumers {
		c.run()
	}
	run.retention.Go(func() { r.keepRetention(background) })
	if err := r.subscribe(ctx, consumers); err != nil {
		return errors.Join(fmt.Errorf("start handlers: %w", err), run.stop(ctx))
	}
	r.running.Store(run)
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

// otherConnections is how many connections of the pool outbox, timeouts and sagas use beside the lanes.
const otherConnections = 6

// checkPool warns of a pool whose connections the lanes alone could hold: whatever else needs one waits for a handler.
func (r *Router) checkPool(consumers []*consumer) {
	lanes := 0
	for _, c := range consumers {
		lanes += c.opts.Lanes
	}
	if most := int(r.cfg.Pool.Config().MaxConns); most < lanes+otherConnections {
		r.cfg.Logger.Warn("pool is small: slow handlers can hold all of its connections, and everything else then waits; raise pool_max_conns of the database's URL, or lower Lanes",
			"max_conns", most, "wanted", lanes+otherConnections, "lanes", lanes, "consumers", len(consumers))
	}
}

// prepare makes the consumers of what is registered.
func (r *Router) prepare(ctx context.Context) ([]*consumer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	for name := range r.configured {
		if r.handlers[name] == nil {
			return nil, valid.Fieldf("consumer", "%.140q is configured and has no handler", name)
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

// Stop takes no more messages, waits for the handlers that run and commits what ran; what was received and not begun goes
// back to the broker. When ctx ends before they are done, their contexts end too and their events come again. Stopped twice, or before Start, it does nothing.
func (r *Router) Stop(ctx context.Context) error {
	r.lifecycle.Lock()
	defer r.lifecycle.Unlock()
	run := r.running.Swap(nil)
	if run == nil {
		return nil
	}
	return run.stop(ctx)
}

func (run *running) stop(ctx context.Context) error {
	run.cancel()
	errs := make([]error, len(run.consumers))
	var group sync.WaitGroup
	for i, c := range run.consumers {
		group.Go(func() { errs[i] = c.drain(ctx) })
	}
	group.Wait()
	run.retention.Wait()
	return errors.Join(errs...)
}

// Err says why a running router handles nothing, or not all, at present: Postgres is away, or the broker, or a handler
// ignores its deadline. nil: all is well, or the router doesn't run.
func (r *Router) Err() error {
	run := r.running.Load()
	if run == nil {
		return nil
	}
	var errs []error
	for _, c := range run.consumers {
		errs = append(errs, c.err())
	}
	return errors.Join(errs...)
}
