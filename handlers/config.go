package handlers

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/repeat"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Config configures a Router. Pool, Transactor, Broker and Source are required.
type Config struct {
	// Pool is the service's database. Each lane of each consumer may hold one of its connections.
	Pool *pgxpool.Pool
	// Transactor runs the handlers' transactions, usually the *outbox.Outbox. They are at Read Committed: one that has a
	// method WithinTx, as the outbox has, is called with it whatever the database's default is.
	Transactor rocketflow.Transactor
	// Broker delivers the events, usually the *rocketmq.Client.
	Broker broker.Subscriber
	// Source is the service's name, as in outbox.Config: the schema belongs to it, and the names of its groups begin with it.
	Source string

	// Schema is the Postgres schema of rocketflow's tables.
	// Defaults to rocketflow.DefaultSchema.
	Schema string
	// Requester requests events that a consumer misses from their publisher.
	// Defaults to Transactor, if that is one, as the *outbox.Outbox is. Without one New fails; [NoRequester] turns such
	// requests off.
	Requester Requester

	// GroupPrefix begins the name of a consumer's group at the broker; the consumer's name follows.
	// Defaults to Source and a hyphen, with characters that a group's name can't have replaced by hyphens.
	GroupPrefix string

	// Lanes, BatchSize, MaxInFlight, RateLimit, Timeout, GapWait, AdoptAfter, Retry and Begin are the defaults of all
	// consumers: see the fields of [ConsumerConfig], and [Router.Configure].

	Lanes       int           // Defaults to 8.
	BatchSize   int           // Defaults to 64.
	MaxInFlight int           // Defaults to 256.
	RateLimit   float64       // Defaults to 0, no limit.
	Timeout     time.Duration // Defaults to 30 s.
	GapWait     time.Duration // Defaults to 200 ms. Negative: not at all.
	AdoptAfter  time.Duration // Defaults to 1 min.
	Retry       RetryPolicy   // Defaults to attempts for about a day, for any error.
	Begin       broker.Begin  // Defaults to broker.BeginOldest.

	// InboxRetention is how long the inbox records that an event without order was handled. An older event can't be
	// distinguished from a duplicate and becomes a dead letter, so it must be longer than the broker keeps messages. At least
	// 1 h.
	// Defaults to 7 days.
	InboxRetention time.Duration
	// PositionRetention is how long the position in a stream is kept after the stream's last event, as one row. At least 1 h.
	// Defaults to 30 days.
	PositionRetention time.Duration
	// MaxAhead is how far a sequence, which is a time, may lie ahead of Postgres' clock. An event beyond it becomes a dead
	// letter and doesn't move the position, as all later events of the stream would then count as older. At least 1 min.
	// Defaults to 1 h.
	MaxAhead time.Duration

	// Clock times the pauses between two searches for due work; what is due or too old is decided by Postgres' clock.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock
	// Listener is called when something happens to events, for metrics and tests.
	// Defaults to none.
	Listener *Listener
	// Logger gets warnings and errors that operators should see.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger

	unresponsiveAfter time.Duration // set by tests
	reporter          *guard.Reporter
	repeated          *repeat.Logger // of Logger
}

// ConsumerConfig configures one consumer of a Router. A zero field takes the Router's value.
type ConsumerConfig struct {
	// Lanes is how many transactions the consumer runs concurrently in this process. Each holds a connection. The events of
	// one aggregate never run concurrently.
	Lanes int
	// BatchSize is the maximum number of events that share a transaction. A lane begins with a few, doubles its batch with
	// each success, and halves it after a failure, a deadlock or a serialization failure. 1 gives each event its own
	// transaction.
	BatchSize int
	// MaxInFlight is the maximum number of messages that this process has received for the consumer and not settled.
	MaxInFlight int
	// RateLimit is the maximum number of events that the consumer handles in a second in this process.
	RateLimit float64
	// Timeout is how long one call of a handler may take. Its context ends then; a handler that doesn't return soon after is
	// abandoned: its transaction is rolled back, the event counts an attempt, and Router.Err names it.
	Timeout time.Duration
	// GapWait is how long an event waits in memory for its predecessor before it is parked.
	GapWait time.Duration
	// AdoptAfter is how long the first event that the consumer meets of a stream waits for a predecessor that is older than
	// the consumer, before it is handled without it. Should the predecessor come later, it becomes a dead letter that
	// holds no other event.
	AdoptAfter time.Duration
	// Retry says when failed events are tried again. If it is set, it replaces the Router's as a whole, rules included.
	Retry RetryPolicy
	// Begin is where the consumer begins to handle a topic that it reads for the first time, by the times when events were
	// recorded: with broker.BeginOldest a new mailer also sends mails for the events of the past days. It takes effect at the
	// first Start with the topic; later changes have no effect. A consumer with another name is a new one and begins anew.
	Begin broker.Begin
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	if c.GroupPrefix == "" && c.Source != "" {
		c.GroupPrefix = valid.GroupName(c.Source) + "-"
	}
	c.Lanes = cmp.Or(c.Lanes, 8)
	c.BatchSize = cmp.Or(c.BatchSize, 64)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 256)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.GapWait = cmp.Or(c.GapWait, 200*time.Millisecond)
	c.AdoptAfter = cmp.Or(c.AdoptAfter, time.Minute)
	c.Retry = c.Retry.withDefaults()
	c.InboxRetention = cmp.Or(c.InboxRetention, 7*24*time.Hour)
	c.PositionRetention = cmp.Or(c.PositionRetention, 30*24*time.Hour)
	c.MaxAhead = cmp.Or(c.MaxAhead, time.Hour)
	c.unresponsiveAfter = cmp.Or(c.unresponsiveAfter, unresponsiveAfter)
	if c.Requester == nil {
		c.Requester, _ = c.Transactor.(Requester)
	}
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	c.repeated = repeat.New(c.Logger, repeat.Config{})
	c.reporter = &guard.Reporter{Logger: c.Logger, Part: "handlers"}
	c.Listener = c.Listener.guarded(c.reporter)
	return c
}

func (c Config) validate() error {
	bad := func(field, reason string) error {
		return valid.Field("handlers.Config."+field, reason)
	}
	switch {
	case c.Pool == nil:
		return bad("Pool", "missing")
	case c.Transactor == nil:
		return bad("Transactor", "missing")
	case c.Broker == nil:
		return bad("Broker", "missing")
	case c.Requester == nil:
		return bad("Requester", "missing: Transactor is none, so name who requests events that the broker has lost, or set handlers.NoRequester")
	case c.Source == "":
		return bad("Source", "missing: name the service")
	case c.InboxRetention < time.Hour:
		return bad("InboxRetention", "want at least 1 h")
	case c.PositionRetention < time.Hour:
		return bad("PositionRetention", "want at least 1 h")
	case c.MaxAhead < time.Minute:
		return bad("MaxAhead", "want at least 1 min")
	case !valid.IsGroup(c.GroupPrefix):
		return bad("GroupPrefix", fmt.Sprintf("%.140q: want letters, digits, _ - %% |", c.GroupPrefix))
	}
	return c.consumer(ConsumerConfig{}).validate("handlers.Config.")
}

// Group returns the name of a consumer's group at the broker.
func (c Config) Group(consumer string) string { return c.withDefaults().GroupPrefix + consumer }

// consumer returns a consumer's configuration, with the Router's values for zero fields.
func (c Config) consumer(own ConsumerConfig) ConsumerConfig {
	own.Lanes = cmp.Or(own.Lanes, c.Lanes)
	own.BatchSize = cmp.Or(own.BatchSize, c.BatchSize)
	own.MaxInFlight = cmp.Or(own.MaxInFlight, c.MaxInFlight)
	own.RateLimit = cmp.Or(own.RateLimit, c.RateLimit)
	own.Timeout = cmp.Or(own.Timeout, c.Timeout)
	own.GapWait = cmp.Or(own.GapWait, c.GapWait)
	own.AdoptAfter = cmp.Or(own.AdoptAfter, c.AdoptAfter)
	if own.Retry.isZero() {
		own.Retry = c.Retry
	}
	own.Retry = own.Retry.withDefaults()
	own.Begin = cmp.Or(own.Begin, c.Begin)
	return own
}

// validate names fields behind a prefix.
func (c ConsumerConfig) validate(prefix string) error {
	bad := func(field, reason string) error {
		return valid.Field(prefix+field, reason)
	}
	switch {
	case c.Lanes < 1:
		return bad("Lanes", "want at least 1")
	case c.BatchSize < 1:
		return bad("BatchSize", "want at least 1")
	case c.MaxInFlight < 1:
		return bad("MaxInFlight", "want at least 1")
	case c.RateLimit < 0:
		return bad("RateLimit", "want events a second, or 0 for no limit")
	case c.Timeout < 0:
		return bad("Timeout", "want more than 0")
	}
	return c.Retry.validate(prefix + "Retry.")
}
