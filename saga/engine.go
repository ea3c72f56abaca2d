package saga

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var sqlFile string

// Router brings events. *handlers.Router is one.
type Router interface {
	Handle(consumer, topic, eventType string, fn rocketflow.HandlerFunc)
}

// Timer keeps deadlines. *timeout.Scheduler is one.
type Timer interface {
	Arm(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) error
	Disarm(ctx context.Context, tx pgx.Tx, key, name string) (bool, error)
	// Fence lets the event of a timeout through only while it is armed and due. The engine fences its deadlines itself.
	Fence(next rocketflow.HandlerFunc) rocketflow.HandlerFunc
}

// Config configures an Engine.
type Config struct {
	Pool     *pgxpool.Pool // required; for retention. Transitions run in the transactions of others
	Router   Router        // required
	Consumer string        // required: the name under which the sagas' handlers are registered

	Timer        Timer  // required by sagas with deadlines
	TimeoutTopic string // required by sagas with deadlines: the topic of the deadlines' events

	Schema string // of rocketflow's tables; default rocketflow.DefaultSchema

	// Retention is how long a finished saga is kept, with its history. Default 30 days; negative: for ever.
	Retention      time.Duration
	ExpireInterval time.Duration // the pause between two looks for finished sagas to delete; default 1 minute

	// Clock times the pause between two such looks; what has expired is for Postgres to say. Default: the machine's.
	Clock    rocketflow.Clock
	Listener Listener
	Logger   *slog.Logger // default: discard
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Retention = cmp.Or(c.Retention, 30*24*time.Hour)
	c.ExpireInterval = cmp.Or(c.ExpireInterval, time.Minute)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = printable.Logger(c.Logger)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return &rocketflow.FieldError{Field: "Pool", Reason: "missing"}
	case c.Router == nil:
		return &rocketflow.FieldError{Field: "Router", Reason: "missing"}
	case c.Consumer == "":
		return &rocketflow.FieldError{Field: "Consumer", Reason: "missing"}
	case c.ExpireInterval < 0:
		return &rocketflow.FieldError{Field: "ExpireInterval", Reason: "negative"}
	}
	return nil
}

// Engine runs sagas on the events that a router brings. All methods are safe for concurrent use.
type Engine struct {
	cfg Config
	sql queries.Set

	mu     sync.RWMutex
	names  map[string]bool
	routes map[route][]listening // by saga name

	expiry expiry
}

// listening is a saga that hears an event.
type listening struct {
	saga   string
	handle rocketflow.HandlerFunc
}

// New checks the configuration. It doesn't touch Postgres yet.
func New(c Config) (*Engine, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("saga: %w", err)
	}
	return &Engine{cfg: c, sql: queries.Parse(sqlFile, c.Schema), names: map[string]bool{}, routes: map[route][]listening{}}, nil
}

// claim reserves a saga's name.
func (e *Engine) claim(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names[name] {
		return printable.Errorf("saga %s: %w", name, errors.New("registered twice"))
	}
	e.names[name] = true
	return nil
}

// listen has a saga hear an event. The router knows one handler for each route, which serves all sagas.
func (e *Engine) listen(r route, saga string, h rocketflow.HandlerFunc) {
	e.mu.Lock()
	old := e.routes[r]
	all := append(slices.Clone(old), listening{saga, h})
	// Every process locks the rows of several sagas in the same order.
	slices.SortFunc(all, func(a, b listening) int { return cmp.Compare(a.saga, b.saga) })
	e.routes[r] = all
	e.mu.Unlock()
	if old == nil {
		e.cfg.Router.Handle(e.cfg.Consumer, r.topic, r.eventType, e.dispatch(r))
	}
}

func (e *Engine) dispatch(r route) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, event rocketflow.Event) error {
		e.mu.RLock()
		all := e.routes[r]
		e.mu.RUnlock()
		for _, l := range all {
			if err := l.handle(ctx, tx, event); err != nil {
				return err
			}
		}
		return nil
	}
}
