package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os/signal"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// Part names a part of an App, in errors and reports.
type Part string

// The parts of an App, in the order in which Start starts them. Stop stops them in the reverse order.
const (
	PartDatabase  Part = "database"  // the pool and the tables
	PartBroker    Part = "broker"    // the connection to RocketMQ and the topics
	PartOutbox    Part = "outbox"    // publishing
	PartTimeouts  Part = "timeouts"  // the scheduler
	PartSagas     Part = "sagas"     // the engine
	PartConsumers Part = "consumers" // the router
	PartDoctor    Part = "doctor"    // the examinations of Config.Doctor
	// PartReconciler is there if Config.Reconcile is set.
	PartReconciler Part = "reconciler"
	PartHTTP       Part = "http" // the server of App.Serve
)

// ErrStopped is returned by Start after Stop. New makes an App that can be started.
var ErrStopped = errors.New("the app was stopped and can't be started again")

// StartError says which part of an App couldn't be opened or started, and why.
type StartError struct {
	Part Part  // the part that failed
	Err  error // the reason
}

// Error returns the part and the reason.
func (e *StartError) Error() string { return fmt.Sprintf("can't start: %s: %v", e.Part, e.Err) }

// Unwrap returns the reason.
func (e *StartError) Unwrap() error { return e.Err }

// App is one process of a service: the parts of rocketflow, connected with each other as they must be. All methods are safe
// for concurrent use.
type App struct {
	config   Config
	log      *slog.Logger
	pool     *pgxpool.Pool
	client   *rocketmq.Client
	outbox   *outbox.Outbox
	timeouts *timeout.Scheduler
	sagas    *saga.Engine
	router   *handlers.Router
	server   server
	health   *Health
	doctor   *doctor.Doctor // nil: none is configured
	// reconciler is nil unless Config.Reconcile is set.
	reconciler *operate.Reconciler

	lifecycle sync.Mutex // held by a Start or a Stop from its beginning to its end
	state     state      // guarded by lifecycle
}

type state int

// An App goes through its states in this order.
const (
	stateNew state = iota
	stateStarted
	stateStopped
)

// New builds the parts. It opens the pool of Config.Database and connects to the broker, which takes at most 10 s. The
// caller must call Stop, even if Start is never called or has failed. An error is a *rocketflow.FieldError for an invalid
// Config, or a *StartError; then nothing is left open, and there is nothing to stop.
func New(c Config) (*App, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	a := &App{config: c, log: c.Logger, pool: c.Pool}
	a.server.log = a.log
	if err := a.build(); err != nil {
		ctx, cancel := a.stopContext(context.Background())
		defer cancel()
		return nil, errors.Join(err, a.Stop(ctx))
	}
	return a, nil
}

// build opens the connections and makes the parts, in the order of their dependencies.
func (a *App) build() (err error) {
	c := a.config
	if a.pool == nil {
		if a.pool, err = pgxpool.NewWithConfig(context.Background(), c.Database); err != nil {
			return &StartError{PartDatabase, err}
		}
	}
	shared := assembly.Shared{Service: c.Service, Schema: c.Schema, Pool: a.pool, Clock: c.Clock, Logger: c.Logger, Metrics: c.Metrics, Tracing: c.Tracing}
	if a.client, err = shared.OpenClient(c.RocketMQ, c.RequireBroker); err != nil {
		return &StartError{PartBroker, err}
	}
	shared.Client = a.client
	if a.outbox, err = shared.NewOutbox(c.Outbox, assembly.TopicNames(a.config.topics())); err != nil {
		return &StartError{PartOutbox, err}
	}
	if a.timeouts, err = shared.NewScheduler(c.Timeout); err != nil {
		return &StartError{PartTimeouts, err}
	}
	if a.router, err = shared.NewRouter(c.Handlers, a.outbox, a.timeouts); err != nil {
		return &StartError{PartConsumers, err}
	}
	if c.Reconcile != nil {
		if a.reconciler, err = shared.NewReconciler(*c.Reconcile); err != nil {
			return &StartError{PartReconciler, err}
		}
	}
	if a.sagas, err = shared.NewEngine(c.Saga, a.router, a.outbox, a.timeouts); err != nil {
		return &StartError{PartSagas, err}
	}
	if c.Doctor != nil {
		if a.doctor, err = shared.NewDoctor(*c.Doctor, c.RocketMQ, c.Outbox, c.Handlers, a.sagas); err != nil {
			return &StartError{PartDoctor, err}
		}
	}
	a.health = NewHealth(HealthConfig{Service: c.Service, Pool: a.pool, Client: a.client, Outbox: a.outbox, Router: a.router})
	return nil
}

// Pool returns the connection pool of all parts.
func (a *App) Pool() *pgxpool.Pool { return a.pool }

// Client returns the connection to RocketMQ.
func (a *App) Client() *rocketmq.Client { return a.client }

// Outbox returns the outbox: its Within runs transactions that publish.
func (a *App) Outbox() *outbox.Outbox { return a.outbox }

// Router returns the router. Register handlers with it, by handlers.On, before Start. The scheduler's fence is its outermost
// middleware, so handlers of timeouts' events need none of their own.
func (a *App) Router() *handlers.Router { return a.router }

// Timeouts returns the scheduler of timeouts.
func (a *App) Timeouts() *timeout.Scheduler { return a.timeouts }

// Requirements returns the topics and consumer groups that the service needs at the broker, as the profile of Config.RocketMQ requires them:
// those of Config and of the handlers and sagas that are registered, and rocketflow's own. Where topics can't be created by clients, print
// them for whoever creates them. Start isn't needed. The error matches broker.ErrIllegal if the profile doesn't allow a name.
func (a *App) Requirements() (rocketmq.Requirements, error) {
	c := a.config
	return assembly.Parts{Service: c.Service, RocketMQ: c.RocketMQ, Outbox: c.Outbox, Topics: c.topics(), Router: a.router}.Requirements()
}

// Sagas returns the engine of sagas. Register definitions with it, by saga.Register, before Start.
func (a *App) Sagas() *saga.Engine { return a.sagas }

// Doctor returns the doctor of Config.Doctor, which has the last report; nil: none is configured.
func (a *App) Doctor() *doctor.Doctor { return a.doctor }

// component is a part with the functions that start and stop it. Stopping a part that isn't started does nothing.
type component struct {
	part  Part
	start func(ctx context.Context) error
	stop  func(ctx context.Context) error
}

// components returns the parts that were built, in the order of their start. The engine of sagas comes before the router,
// because it verifies the states of stored sagas before their events are handled.
func (a *App) components() []component {
	var all []component
	add := func(part Part, start, stop func(context.Context) error) {
		all = append(all, component{part, start, stop})
	}
	if a.pool != nil {
		add(PartDatabase, a.prepareDatabase, a.closeDatabase)
	}
	if a.client != nil {
		add(PartBroker, a.prepareTopics, a.client.Close)
	}
	if a.outbox != nil {
		add(PartOutbox, a.outbox.Start, a.outbox.Stop)
	}
	if a.timeouts != nil {
		add(PartTimeouts, a.timeouts.Start, a.timeouts.Stop)
	}
	if a.sagas != nil {
		add(PartSagas, a.sagas.Start, a.sagas.Stop)
	}
	if a.router != nil {
		add(PartConsumers, a.router.Start, a.router.Stop)
	}
	if a.doctor != nil {
		add(PartDoctor, a.doctor.Start, a.doctor.Stop)
	}
	if a.reconciler != nil {
		add(PartReconciler, a.reconciler.Start, a.reconciler.Stop)
	}
	add(PartHTTP, func(ctx context.Context) error { return a.server.start(ctx, a.config.ListenAddr) }, a.server.stop)
	if a.health != nil {
		add(partService, a.health.Start, a.health.Stop) // last to start and first to stop: readiness covers all parts
	}
	return all
}

// Start waits up to 15 s for the database, verifies or migrates its tables, verifies or creates the topics, and starts all
// parts. If the pool is too small for the consumers' lanes, it logs a warning that contains the recommended size. ctx bounds
// the start only. Starting a started App does nothing; after Stop it returns ErrStopped.
//
// An error is a *StartError. Everything that was started or opened is then stopped and closed.
func (a *App) Start(ctx context.Context) error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	switch a.state {
	case stateStarted:
		return nil
	case stateStopped:
		return ErrStopped
	}
	for _, c := range a.components() {
		if err := c.start(ctx); err != nil {
			if ctx.Err() != nil {
				err = errors.Join(err, context.Cause(ctx))
			}
			ctx, cancel := a.stopContext(ctx)
			defer cancel()
			return errors.Join(&StartError{c.part, err}, a.stop(ctx))
		}
	}
	a.state = stateStarted
	a.log.Info("service started", keyService, a.config.Service)
	return nil
}

// Stop stops all parts in the reverse order: the HTTP server accepts no more requests, then the consumers finish the events
// whose handlers run, then the outbox sends the events that it has in memory, then connections close. Work that isn't done
// when ctx ends is left to another process or the next start; nothing is lost. The pool is closed if New has opened it.
// Stopping a stopped App does nothing.
func (a *App) Stop(ctx context.Context) error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	if a.state == stateStopped {
		return nil
	}
	return a.stop(ctx)
}

func (a *App) stop(ctx context.Context) error {
	a.state = stateStopped
	all := a.components()
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		if err := all[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop: %s: %w", all[i].part, err))
		}
	}
	return errors.Join(errs...)
}

func (a *App) stopContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.config.StopTimeout)
}

// Run starts the App, waits until SIGINT or SIGTERM arrives or ctx ends, and stops it within Config.StopTimeout. A second
// signal ends the process at once. Run returns nil after an orderly stop, else the error of the start, of the HTTP server or
// of the stop.
func (a *App) Run(ctx context.Context) error {
	ctx, release := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer release()
	if err := a.Start(ctx); err != nil {
		return err
	}
	var failure error
	select {
	case <-ctx.Done():
		a.log.Info("service stops", keyService, a.config.Service, keyReason, context.Cause(ctx))
	case failure = <-a.server.failed():
		a.log.Error("HTTP server failed, the service stops", keyService, a.config.Service, keyError, failure)
	}
	release()
	stopping, cancel := a.stopContext(ctx)
	defer cancel()
	return errors.Join(failure, a.Stop(stopping))
}

// Serve registers the handler of an HTTP server on Config.ListenAddr, which is the last part to start and the first to stop.
// The server has timeouts for clients that are slow to send or to read. Call Serve before Start. Without it no server is
// started.
func (a *App) Serve(h http.Handler) { a.server.setHandler(h) }

// Addr returns the address, host:port, that the HTTP server listens on. It is empty before Start and without Serve.
func (a *App) Addr() string { return a.server.addr() }

// Health returns the checks of the App's parts.
func (a *App) Health() *Health { return a.health }

// Ready is Health().Ready: nil if the service can serve requests, with or without a broker.
func (a *App) Ready(ctx context.Context) error { return a.health.Ready(ctx) }

// Report is Health().Report: the problems of all parts, and the backlog.
func (a *App) Report(ctx context.Context) Report { return a.health.Report(ctx) }

// ReadyHandler is Health().ReadyHandler, for a readiness probe.
func (a *App) ReadyHandler() http.Handler { return a.health.ReadyHandler() }

// LiveHandler is Health().LiveHandler, for a liveness probe.
func (a *App) LiveHandler() http.Handler { return a.health.LiveHandler() }

func (a *App) prepareDatabase(ctx context.Context) error {
	if err := assembly.AwaitDatabase(ctx, a.pool); err != nil {
		return err
	}
	return assembly.PrepareSchema(ctx, a.pool, a.config.Schema, a.config.Migrate)
}

func (a *App) closeDatabase(context.Context) error {
	if a.config.Pool == nil {
		a.pool.Close()
	}
	return nil
}

func (a *App) prepareTopics(ctx context.Context) error {
	return assembly.PrepareTopics(ctx, a.client, a.config.topics(), a.config.CreateTopics)
}
