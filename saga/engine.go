package saga

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/background"
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

// Router delivers events to the handlers of sagas. *handlers.Router implements it.
type Router interface {
	// Handle registers fn as the handler of a consumer for events of a topic and type.
	Handle(consumer, topic, eventType string, fn rocketflow.HandlerFunc)
}

// Timer keeps the deadlines of sagas. *timeout.Scheduler implements it.
type Timer interface {
	// Arm arms the timeout (key, name) in tx: event is delivered at the given time, unless the timeout is disarmed before.
	Arm(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) error
	// Disarm disarms the timeout in tx. It returns false if the timeout was not armed.
	Disarm(ctx context.Context, tx pgx.Tx, key, name string) (bool, error)
	// Fence returns a handler that calls next for a timeout's event only if the timeout is armed and due. The engine fences
	// the deadlines of its sagas itself.
	Fence(next rocketflow.HandlerFunc) rocketflow.HandlerFunc
}

// Config configures an Engine. Pool, Router, Transactor and Consumer are required, and with them Timer and TimeoutTopic
// for sagas with deadlines. A zero field takes its default.
type Config struct {
	// Pool runs the engine's own statements. Required.
	Pool *pgxpool.Pool
	// Router delivers the events of the sagas. Required.
	Router Router
	// Transactor runs the transactions in which the engine applies waiting events on its own, usually *outbox.Outbox. The
	// transitions of events that the router delivers run in the router's transactions. Both are at Read Committed: a transactor
	// that has a method WithinTx, as the outbox has, is called with it whatever the database's default is. Required.
	Transactor rocketflow.Transactor
	// Consumer is the prefix of the names of the sagas' consumers, usually the service's name. Each saga is a consumer of its
	// own, named Consumer + "-" + the saga's name, with each "." of it replaced by "_". Required.
	Consumer string

	// Timer keeps the deadlines. Register returns an error for a definition with deadlines if it is missing.
	Timer Timer
	// TimeoutTopic is the topic of the events of deadlines. Register returns an error for a definition with deadlines if it is
	// missing.
	TimeoutTopic string

	// Schema is the Postgres schema of rocketflow's tables.
	// Defaults to rocketflow.DefaultSchema.
	Schema string

	// WaitLimit is how long an event waits for a state that accepts it. [Wait] sets another limit for a type of event.
	// Defaults to 7 days.
	WaitLimit time.Duration
	// UnbegunLimit is how long an event waits for its saga to begin. [Wait] sets another limit for a type of event.
	// Defaults to 24 h.
	UnbegunLimit time.Duration
	// WaitAttempts is the number of attempts to apply a waiting event whose function fails. After the last of them the event
	// has failed, and an operator has to retry or discard it.
	// Defaults to 36, which takes about a day.
	WaitAttempts int

	// Retention is how long a finished saga is kept, with its history, and a waiting event that failed or expired. A negative
	// value keeps them for ever.
	// Defaults to 30 days.
	Retention time.Duration
	// RetentionInterval is the pause between two deletions of what is older than Retention.
	// Defaults to 1 min.
	RetentionInterval time.Duration
	// PollInterval is the pause between two queries for waiting events that are due.
	// Defaults to 1 s.
	PollInterval time.Duration

	// Around is called for each transition, and each beginning of a saga, and must call run once, with ctx or a context derived
	// from it, and return its error: run calls the definition's function and writes the saga's row. Age is not set yet. Package
	// tracing uses it.
	// Defaults to calling run.
	Around func(ctx context.Context, t TransitionInfo, run func(ctx context.Context) error) error

	// Clock times the pauses. Whether something is due is decided by the clock of Postgres.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock
	// Listener observes what happens to sagas.
	// Defaults to none.
	Listener *Listener
	// Logger receives warnings and errors that operators should see.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.WaitLimit = cmp.Or(c.WaitLimit, 7*24*time.Hour)
	c.UnbegunLimit = cmp.Or(c.UnbegunLimit, 24*time.Hour)
	c.WaitAttempts = cmp.Or(c.WaitAttempts, 36)
	c.Retention = cmp.Or(c.Retention, 30*24*time.Hour)
	c.RetentionInterval = cmp.Or(c.RetentionInterval, time.Minute)
	c.PollInterval = cmp.Or(c.PollInterval, time.Second)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	if c.Around == nil {
		c.Around = func(ctx context.Context, _ TransitionInfo, run func(ctx context.Context) error) error {
			return run(ctx)
		}
	}
	return c
}

// validate returns a *rocketflow.FieldError for the first field that can't be used.
func (c Config) validate() error {
	const missing, negative = "missing", "negative"
	bad := func(field, reason string) error { return valid.Field("saga.Config."+field, reason) }
	switch {
	case c.Pool == nil:
		return bad("Pool", missing)
	case c.Router == nil:
		return bad("Router", missing)
	case c.Transactor == nil:
		return bad("Transactor", missing)
	case c.Consumer == "":
		return bad("Consumer", missing)
	case c.WaitLimit < 0:
		return bad("WaitLimit", negative)
	case c.UnbegunLimit < 0:
		return bad("UnbegunLimit", negative)
	case c.WaitAttempts < 0:
		return bad("WaitAttempts", negative)
	case c.RetentionInterval < 0:
		return bad("RetentionInterval", negative)
	case c.PollInterval < 0:
		return bad("PollInterval", negative)
	}
	return nil
}

// Engine runs the sagas of the definitions that were registered with it. All methods are safe for concurrent use.
type Engine struct {
	cfg      Config
	repeated *repeat.Logger // the handler behind cfg.Logger; flushed by Stop
	sql      queries.Set

	mu      sync.RWMutex
	sagas   map[string]registered // by name
	refused []error               // of the definitions that Register refused

	rechecks chan sagaKey // the queue of recheck
	group    background.Group
}

type sagaKey struct{ saga, key string }

// registered is a *Saga of any type of data.
type registered interface {
	// applyWaitingOf applies the waiting events of the saga with this key, as far as its state accepts them.
	applyWaitingOf(ctx context.Context, tx rocketflow.Tx, key string) error
	// accepts reports whether a state has a transition for an event.
	accepts(version int, state string, r route) bool
	// unknown returns why the definition can't go on with a saga of this version and state, or "", and the version that it
	// has.
	unknown(version int, state string) (reason UnknownReason, known int)
	consumer() string
	graph() Graph
}

// New returns a stopped Engine. It returns a *rocketflow.FieldError if a field of c can't be used. It doesn't connect to
// Postgres.
func New(c Config) (*Engine, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.Listener = c.Listener.guarded(&guard.Reporter{Logger: c.Logger, Part: "saga"})
	repeated := repeat.New(c.Logger, repeat.Config{})
	c.Logger = repeated.Logger
	return &Engine{cfg: c, repeated: repeated, sql: queries.Parse(sqlFile, c.Schema), sagas: map[string]registered{}, rechecks: make(chan sagaKey, 1024)}, nil
}

// add adds a saga to the registry. It returns an error if its name or the name of its consumer is taken.
func (e *Engine) add(name string, s registered) error {
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

// refuse keeps the error of a definition for Start.
func (e *Engine) refuse(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused = append(e.refused, err)
}

// refusedDefinitions returns the errors of all definitions that Register refused, or nil.
func (e *Engine) refusedDefinitions() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(e.refused) == 0 {
		return nil
	}
	return fmt.Errorf("definitions were refused: %w", errors.Join(e.refused...))
}

// registry returns a copy of the registered sagas, by name.
func (e *Engine) registry() map[string]registered {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return maps.Clone(e.sagas)
}

// consumerOf returns the name of a saga's consumer. The name of a consumer may not contain a ".".
func (e *Engine) consumerOf(saga string) string {
	return e.cfg.Consumer + "-" + strings.ReplaceAll(saga, ".", "_")
}
