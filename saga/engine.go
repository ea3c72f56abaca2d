package saga

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/repeat"
	"github.com/rocketflow/rocketflow/internal/valid"
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
	Pool   *pgxpool.Pool // required; for retention and for looking at waiting events
	Router Router        // required

	// Transactor runs the transactions in which the engine applies waiting events by itself; usually *outbox.Outbox.
	// Transitions that events cause run in the transactions of the router. Without a Transactor a waiting event is applied
	// only by the next transition of its saga, and one whose function failed isn't tried again; Start warns.
	Transactor rocketflow.Transactor

	// Consumer is required: the beginning of the names under which the sagas' handlers are registered. Each saga is a
	// consumer of its own, Consumer + "-" + the saga's name, with each "." replaced by "_".
	Consumer string

	Timer        Timer  // required by sagas with deadlines
	TimeoutTopic string // required by sagas with deadlines: the topic of the deadlines' events

	Schema string // of rocketflow's tables; default rocketflow.DefaultSchema

	// WaitLimit is how long an event waits for a state that takes it; default 7 days. [Wait] says otherwise for a type.
	WaitLimit time.Duration
	// UnbegunLimit is how long an event waits for its saga to begin; default 24 hours. [Wait] says otherwise for a type.
	UnbegunLimit time.Duration
	// WaitAttempts is how often a waiting event is applied whose function fails, before it counts as failed and is left to a
	// person; default 36, which takes about a day.
	WaitAttempts int

	// Retention is how long a finished saga is kept, with its history, and a waiting event that failed or expired. Default
	// 30 days; negative: for ever.
	Retention      time.Duration
	ExpireInterval time.Duration // the pause between two looks for what retention deletes; default 1 minute
	LookInterval   time.Duration // the pause between two looks for waiting events that are due; default 1 second

	// Clock times the pauses; what is due is for Postgres to say. Default: the machine's.
	Clock    rocketflow.Clock
	Listener Listener
	Logger   *slog.Logger // default: warnings and errors go to stderr
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.WaitLimit = cmp.Or(c.WaitLimit, 7*24*time.Hour)
	c.UnbegunLimit = cmp.Or(c.UnbegunLimit, 24*time.Hour)
	c.WaitAttempts = cmp.Or(c.WaitAttempts, 36)
	c.Retention = cmp.Or(c.Retention, 30*24*time.Hour)
	c.ExpireInterval = cmp.Or(c.ExpireInterval, time.Minute)
	c.LookInterval = cmp.Or(c.LookInterval, time.Second)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	return c
}

func (c Config) validate() error {
	bad := func(field, reason string) error { return valid.Field(field, reason) }
	switch {
	case c.Pool == nil:
		return bad("Pool", "missing")
	case c.Router == nil:
		return bad("Router", "missing")
	case c.Consumer == "":
		return bad("Consumer", "missing")
	case c.WaitLimit < 0:
		return bad("WaitLimit", "negative")
	case c.UnbegunLimit < 0:
		return bad("UnbegunLimit", "negative")
	case c.WaitAttempts < 0:
		return bad("WaitAttempts", "negative")
	case c.ExpireInterval < 0:
		return bad("ExpireInterval", "negative")
	case c.LookInterval < 0:
		return bad("LookInterval", "negative")
	}
	return nil
}

// Engine runs sagas on the events that a router brings. All methods are safe for concurrent use.
type Engine struct {
	cfg      Config
	repeated *repeat.Logger // what cfg.Logger writes to, flushed by Stop
	sql      queries.Set

	mu    sync.RWMutex
	sagas map[string]registered // by name

	met        chan sagaKey // committed here: a saga that began, or an event whose saga had not
	background background
}

type sagaKey struct{ saga, key string }

// registered is a *Saga, whatever its data.
type registered interface {
	// look applies what waits for a saga and can be applied.
	look(ctx context.Context, tx rocketflow.Tx, key string) error
	// takes tells whether a state has a transition for an event.
	takes(version int, state string, r route) bool
	// unknown describes the state if the definition doesn't have it, or is empty.
	unknown(version int, state string) string
	consumer() string
}

// New checks the configuration. It doesn't touch Postgres yet.
func New(c Config) (*Engine, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("saga: %w", err)
	}
	c.Listener = c.Listener.guarded(&guard.Reporter{Logger: c.Logger, Part: "saga"})
	repeated := repeat.New(c.Logger, repeat.Config{})
	c.Logger = repeated.Logger
	return &Engine{cfg: c, repeated: repeated, sql: queries.Parse(sqlFile, c.Schema), sagas: map[string]registered{}, met: make(chan sagaKey, 1024)}, nil
}

// claim reserves a saga's name, and the consumer's.
func (e *Engine) claim(name string, s registered) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sagas[name] != nil {
		return printable.Errorf("saga %s: %w", name, errors.New("registered twice"))
	}
	for other, o := range e.sagas {
		if o.consumer() == s.consumer() {
			return printable.Errorf("saga %s: its consumer %s is that of saga %s: rename one of them", name, s.consumer(), other)
		}
	}
	e.sagas[name] = s
	return nil
}

// registry returns what is registered, by name.
func (e *Engine) registry() map[string]registered {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make(map[string]registered, len(e.sagas))
	for name, s := range e.sagas {
		all[name] = s
	}
	return all
}

// consumerOf is the name of a saga's consumer. Names of consumers are narrower than those of sagas.
func (e *Engine) consumerOf(saga string) string {
	return e.cfg.Consumer + "-" + strings.ReplaceAll(saga, ".", "_")
}
