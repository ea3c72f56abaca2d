package handlers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/migrations"
)

//go:embed queries.sql
var queriesFile string

// Router gives events to handlers. Each consumer name is a group at the broker: processes that register the same name
// share its events, and must register the same handlers. Its methods are safe for concurrent use; handlers and
// middleware are registered before Start.
type Router struct {
	cfg Config
	sql queries.Set

	mu         sync.Mutex // of what is registered
	handlers   map[string]map[route]rocketflow.HandlerFunc
	middleware []rocketflow.Middleware
	problems   []error

	lifecycle sync.Mutex // held while starting and stopping; before mu
	running   atomic.Pointer[running]
}

// running is what Start started.
type running struct {
	consumers []*consumer
	cancel    context.CancelFunc // of the keeper
	keeper    sync.WaitGroup
}

// New returns a Router that is to be given handlers and started. It returns a *rocketflow.FieldError for a Config that
// can't be used.
func New(cfg Config) (*Router, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Router{
		cfg: cfg, sql: queries.Parse(queriesFile, cfg.Schema), handlers: map[string]map[route]rocketflow.HandlerFunc{},
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
		p, err := rocketflow.Decode[P](e)
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
	if err := (rocketflow.Event{Topic: topic, Type: eventType}).Validate(); err != nil {
		var field *rocketflow.FieldError
		if errors.As(err, &field) {
			r.problem(field.Field, fmt.Sprintf("of a handler of %s: %s", consumer, field.Reason))
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handlers[consumer] == nil {
		r.handlers[consumer] = map[route]rocketflow.HandlerFunc{}
	}
	key := route{topic, eventType}
	if r.handlers[consumer][key] != nil {
		r.problems = append(r.problems, &rocketflow.FieldError{
			Field: "handler", Reason: fmt.Sprintf("%s has two for %s %s: give one of them a consumer name of its own", consumer, topic, eventType),
		})
		return
	}
	r.handlers[consumer][key] = fn
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
	r.problems = append(r.problems, &rocketflow.FieldError{Field: field, Reason: reason})
}

// Start subscribes all consumers. It returns what was registered wrongly, ErrNotMigrated, and the broker's reasons
// (ErrTopicNotFound, ErrUnauthorized, ErrUnavailable); nothing runs then. ctx bounds the start only. Started twice it
// does nothing.
func (r *Router) Start(ctx context.Context) error {
	r.lifecycle.Lock()
	defer r.lifecycle.Unlock()
	if r.running.Load() != nil {
		return nil
	}
	if err := migrations.Check(ctx, r.cfg.Pool, r.cfg.Schema); err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	consumers, err := r.prepare(ctx)
	if err != nil {
		return fmt.Errorf("start handlers: %w", err)
	}
	if err := r.makePartitions(ctx); err != nil {
		r.cfg.Logger.Warn("can't make the inbox's partitions; its default one takes their rows", keyError, err)
	}
	background, cancel := context.WithCancel(context.Background())
	run := &running{consumers: consumers, cancel: cancel}
	for _, c := range consumers {
		c.run()
	}
	run.keeper.Go(func() { r.keep(background) })
	for _, c := range consumers {
		s := broker.Subscription{Group: r.cfg.GroupPrefix + c.name, Topics: c.topics(), MaxInFlight: r.cfg.MaxInFlight}
		if c.subscription, err = r.cfg.Broker.Subscribe(ctx, s, c.receive); err != nil {
			err = fmt.Errorf("start handlers: subscribe %s to %v: %w", s.Group, s.Topics, err)
			return errors.Join(err, run.stop(ctx))
		}
	}
	r.running.Store(run)
	return nil
}

// prepare makes the consumers of what is registered.
func (r *Router) prepare(ctx context.Context) ([]*consumer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	var consumers []*consumer
	for _, name := range slices.Sorted(maps.Keys(r.handlers)) {
		wrapped := map[route]rocketflow.HandlerFunc{}
		for key, fn := range r.handlers[name] {
			for _, m := range slices.Backward(r.middleware) {
				fn = m(fn)
			}
			wrapped[key] = fn
		}
		c := newConsumer(name, &r.cfg, r.sql, wrapped)
		if err := c.register(ctx); err != nil {
			return nil, err
		}
		consumers = append(consumers, c)
	}
	return consumers, nil
}

// Stop takes no more messages and waits for the handlers that run. When ctx ends before they are done, their contexts
// end too and their events come again. Stopped twice, or before Start, it does nothing.
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
	run.keeper.Wait()
	return errors.Join(errs...)
}

// Err says why a running router handles nothing, or not all, at present: Postgres is away, or the broker. nil: all is
// well, or the router doesn't run.
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
