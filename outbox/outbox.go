package outbox

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/coalesce"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/migrations"
)

//go:embed queries.sql
var queriesSQL string

//go:embed sweep.sql
var sweepSQL string

// Broker is the part of a message broker that an outbox uses. *rocketmq.Client implements it.
type Broker interface {
	broker.TransactionProducerOpener
	broker.Subscriber // for the missing-events requests of consumers
	Send(ctx context.Context, m broker.Message) (broker.Receipt, error)
	// SendGroup sends messages in one request, as broker.Sender does.
	SendGroup(ctx context.Context, ms []broker.Message) []error
	// Shard returns a number for a sharding key: messages of a topic whose keys have the same number can share a request of
	// SendGroup, as far as is known now. It must not block.
	Shard(topic, shardingKey string) int
	VerifyTopics(ctx context.Context, topics ...string) error
}

// Config configures an Outbox. Pool, Broker and Source are required; other fields that are zero take their defaults.
type Config struct {
	// Pool connects to the primary server of the application's database: replicas would answer check-backs wrongly. Required.
	Pool *pgxpool.Pool

	// Broker takes the events. Required.
	Broker Broker

	// Source is the name of the service, a URI reference. It is the source attribute of its events and a part of their
	// streams' names. All processes of a service use the same source and the same database. Required.
	Source string

	// Schema is the schema of rocketflow's tables. Defaults to rocketflow.DefaultSchema.
	Schema string

	// Group is the producer group. The broker checks back with any of its members, so all of them must use the same database.
	// Defaults to Source, with a hyphen for each character that a group's name can't have.
	Group string

	// Topics are the topics that may be published to: Start verifies that they exist, and Publish refuses others. Defaults to
	// any topic; then an event of a topic that doesn't exist is owed until it does.
	Topics []string

	// HalfTimeout is how long Commit waits for half messages, with the rows of its streams locked. Defaults to 500 ms.
	HalfTimeout time.Duration

	// EndTimeout is how long Commit waits for the broker's answers after Postgres has committed. Defaults to 500 ms.
	EndTimeout time.Duration

	// MaxTransaction is how long a transaction may be open before the broker is told to roll its half messages back. Events
	// of transactions that commit later are sent by the sweep. Defaults to 5 min.
	MaxTransaction time.Duration

	// MaxBody is the size limit of an encoded body, in bytes; Publish refuses larger ones. It must be below the broker's
	// maxMessageSize (4 MiB unless it is configured otherwise). Defaults to 1 MiB.
	MaxBody int

	// Path is the way of events to the broker. Defaults to Auto.
	Path Path

	// MaxHalfMessages is how many events may be in flight for a transaction to take the half-message path with Auto. Its own
	// events count, as do events in commits, half messages that are not ended, and requests of the relay. Defaults to 4.
	MaxHalfMessages int

	// RelayBuffer is how many events wait in memory for the relay. What doesn't fit is read back from Postgres when there is
	// room. Defaults to 4096.
	RelayBuffer int

	// RelayBytes is how many bytes of bodies wait in memory for the relay. Defaults to 64 MiB.
	RelayBytes int

	// RelayGroup is how many events the relay sends in one request. Defaults to 64.
	RelayGroup int

	// RelayWorkers is how many requests the relay makes at a time, each to another queue. Defaults to 4.
	RelayWorkers int

	// RelayPace is the least time between two requests of the relay to the same queue, unless that has RelayGroup events
	// waiting. Under load events gather meanwhile, which spares the broker and the consumers requests. A negative pace
	// doesn't wait. Defaults to 5 ms.
	RelayPace time.Duration

	// SweepInterval is the time between two passes of the sweep. Defaults to 1 s.
	SweepInterval time.Duration

	// SweepGrace is how old an owed event must be for the sweep to send it: until then its half message or the relay may do
	// so. It must be longer than HalfTimeout. Defaults to 5 s.
	SweepGrace time.Duration

	// SweepPage is how many rows the sweep reads at a time. Defaults to 1000.
	SweepPage int

	// DrainRate is how many events the sweep sends in a second, so that a broker that was away is not overloaded; new events
	// don't wait for it. A negative rate is unlimited. Defaults to 2000.
	DrainRate int

	// MaxBacklog is how many events may be owed. Beyond it Publish returns a *rocketflow.BackpressureError, in all processes
	// within a second or two, until a fifth is drained. A negative number is unlimited. Defaults to 100,000.
	MaxBacklog int

	// MaxRejected is how many events of one topic may be owed that the broker rejects, because a topic or a right is missing
	// or an event is too large. Beyond it Publish returns a *rocketflow.BackpressureError that names the topic, for events of
	// that topic only. Rejected events don't count against MaxBacklog. A negative number is unlimited. Defaults to 10,000, or
	// to MaxBacklog if that is less.
	MaxRejected int

	// IgnoreDiscarded turns off the consumer that reports half messages which the broker gave up (Listener.Discarded). That
	// consumer runs if Broker is a DiscardReader, in the group Group + "_discarded", once the broker has given up a first
	// half message.
	IgnoreDiscarded bool

	// Retention is how long acknowledged events are kept, in whole days; at least one day. Defaults to 7 days.
	Retention time.Duration

	// StreamRetention is how long the last sequence of an idle stream is kept. It must be at least a day longer than
	// Retention. The next event of a stream begins a new chain then, and consumers that miss the end of the old chain don't
	// notice. Defaults to twice Retention.
	StreamRetention time.Duration

	// ResendLimit is how many events are sent again for one missing-events request of a consumer. Defaults to 1000.
	ResendLimit int

	// ResendRate is how many events are sent again in a second for such requests. With a negative rate they are not answered.
	// Defaults to 1000.
	ResendRate float64

	// ResendBytes is how many bytes of events are sent again for one request, though at least one event, and in a second for
	// one requester: requests are small, and whoever may publish to rocketflow.MissingEventsTopic can send them. Defaults to
	// 1 MiB.
	ResendBytes int

	// Clock gives the ids of events their time, and times the pauses of background work; Postgres' clock decides what is due.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock

	// Listener is called with what happens to events. Defaults to none.
	Listener *Listener

	// Logger gets warnings and errors that operators should see. Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Group = cmp.Or(c.Group, groupName(c.Source))
	c.HalfTimeout = cmp.Or(c.HalfTimeout, 500*time.Millisecond)
	c.EndTimeout = cmp.Or(c.EndTimeout, 500*time.Millisecond)
	c.MaxTransaction = cmp.Or(c.MaxTransaction, 5*time.Minute)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	c.RelayBuffer = cmp.Or(c.RelayBuffer, 4096)
	c.RelayBytes = cmp.Or(c.RelayBytes, 64<<20)
	c.RelayGroup = cmp.Or(c.RelayGroup, 64)
	c.RelayWorkers = cmp.Or(c.RelayWorkers, 4)
	c.RelayPace = cmp.Or(c.RelayPace, 5*time.Millisecond)
	c.MaxHalfMessages = cmp.Or(c.MaxHalfMessages, 4)
	c.SweepInterval = cmp.Or(c.SweepInterval, time.Second)
	c.SweepGrace = cmp.Or(c.SweepGrace, 5*time.Second)
	c.SweepPage = cmp.Or(c.SweepPage, 1000)
	c.DrainRate = cmp.Or(c.DrainRate, 2000)
	c.MaxBacklog = cmp.Or(c.MaxBacklog, 100_000)
	if c.MaxRejected == 0 {
		c.MaxRejected = 10_000
		if c.MaxBacklog > 0 {
			c.MaxRejected = min(c.MaxRejected, c.MaxBacklog)
		}
	}
	c.Retention = cmp.Or(c.Retention, 7*24*time.Hour)
	c.StreamRetention = cmp.Or(c.StreamRetention, 2*c.Retention)
	c.ResendLimit = cmp.Or(c.ResendLimit, 1000)
	c.ResendRate = cmp.Or(c.ResendRate, 1000)
	c.ResendBytes = cmp.Or(c.ResendBytes, 1<<20)
	c.Logger = logging.Or(c.Logger)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	return c
}

// groupName makes the name of a group of a source, which may be any URI reference.
func groupName(source string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-%|", r) {
			return r
		}
		return '-'
	}, source)
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("outbox.Config.Pool", "missing")
	case c.Broker == nil:
		return valid.Field("outbox.Config.Broker", "missing")
	case c.Retention < 24*time.Hour:
		return valid.Fieldf("outbox.Config.Retention", "%v: want at least a day", c.Retention)
	}
	if err := wire.ValidateSource("outbox.Config.Source", c.Source); err != nil {
		return err
	}
	if c.Path < Auto || c.Path > Relay {
		return valid.Fieldf("outbox.Config.Path", "%d: want Auto, HalfMessages or Relay", c.Path)
	}
	if c.StreamRetention < c.Retention+24*time.Hour {
		return valid.Fieldf("outbox.Config.StreamRetention", "%v: want at least a day more than Retention (%v)", c.StreamRetention, c.Retention)
	}
	if c.SweepGrace <= c.HalfTimeout {
		return valid.Fieldf("outbox.Config.SweepGrace", "%v: want more than HalfTimeout (%v), so that the sweep doesn't send what is in flight", c.SweepGrace, c.HalfTimeout)
	}
	for name, d := range map[string]time.Duration{
		"HalfTimeout": c.HalfTimeout, "EndTimeout": c.EndTimeout, "MaxTransaction": c.MaxTransaction,
		"SweepInterval": c.SweepInterval, "SweepGrace": c.SweepGrace,
	} {
		if d <= 0 {
			return valid.Fieldf("outbox.Config."+name, "%v: want more than 0", d)
		}
	}
	for name, n := range map[string]int{
		"MaxBody": c.MaxBody, "RelayBuffer": c.RelayBuffer, "RelayBytes": c.RelayBytes, "RelayWorkers": c.RelayWorkers, "RelayGroup": c.RelayGroup, "MaxHalfMessages": c.MaxHalfMessages, "SweepPage": c.SweepPage, "ResendLimit": c.ResendLimit, "ResendBytes": c.ResendBytes,
	} {
		if n <= 0 {
			return valid.Fieldf("outbox.Config."+name, "%d: want more than 0", n)
		}
	}
	return nil
}

// Outbox publishes events in Postgres transactions and sends them to the broker once these have committed. Create it with
// New. All methods are safe for concurrent use.
type Outbox struct {
	config   Config
	queries  queries.Set
	listener *Listener
	log      *slog.Logger

	backlog        backlog
	expedited      expedited
	hot            hotStreams
	exposed        exposedConns
	faults         guard.Reporter // of the application's functions
	loggedReasons  loggedReasons
	checkLog       checkLog
	skewed         atomic.Bool  // it was logged that the clock differs from Postgres'
	skew           atomic.Int64 // how far Postgres' is ahead of it, in nanoseconds; 0 unless they differ
	requestsAreOff sync.Once    // guards the log that the topic of missing-events requests doesn't exist

	turn    sync.Mutex // held by a Start or a Stop from its beginning to its end
	running atomic.Pointer[services]
}

// services is what exists between Start and Stop.
type services struct {
	database   string
	producer   broker.TransactionProducer
	paths      *pathSelector
	acks       *acker
	rejections *batcher[rejectedEvent]
	relay      *relay
	sweep      *sweeper
	retention  *retainer
	resender   *resender
	discards   *discardReporter
	checking   inProgress
	lookups    *coalesce.Coalescer[uuid.UUID, found]    // of check-backs
	ackChecked *coalesce.Coalescer[uuid.UUID, struct{}] // what check-backs have committed
}

// New returns an outbox; Start must be called before it is used. An error is a *rocketflow.FieldError that names a field of
// Config.
func New(c Config) (*Outbox, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	o := &Outbox{config: c, queries: queries.Parse(queriesSQL+"\n"+sweepSQL+"\n"+missingEventsSQL+"\n"+retentionSQL+"\n"+rejectionsSQL, c.Schema), log: c.Logger}
	o.backlog.limit, o.backlog.topicLimit = int64(c.MaxBacklog), int64(c.MaxRejected)
	o.faults.Logger, o.faults.Part = c.Logger, "outbox"
	o.listener = Tee(o.backlog.listener(), o.expedited.listener(), c.Listener.guarded(&o.faults))
	return o, nil
}

// ErrNotStarted is returned by what publishes, before Start and after Stop.
var ErrNotStarted = errors.New("outbox is not started")

// Start verifies the schema and the topics, then starts to answer check-backs, to relay, to sweep and to apply retention.
// ctx bounds the start only. Starting a started outbox does nothing.
func (o *Outbox) Start(ctx context.Context) error {
	o.turn.Lock()
	defer o.turn.Unlock()
	if o.current() != nil {
		return nil
	}
	s, err := o.startServices(ctx)
	if err != nil {
		return fmt.Errorf("start outbox: %w", err)
	}
	o.running.Store(s)
	return nil
}

func (o *Outbox) startServices(ctx context.Context) (*services, error) {
	if err := migrations.Check(ctx, o.config.Pool, o.config.Schema); err != nil {
		return nil, err
	}
	database, err := installation.Claim(ctx, o.config.Pool, o.config.Schema, o.config.Source)
	if err != nil {
		return nil, err
	}
	if len(o.config.Topics) > 0 {
		if err := o.config.Broker.VerifyTopics(ctx, o.config.Topics...); err != nil {
			return nil, err
		}
	}
	s := &services{database: database}
	if err := o.readBacklog(ctx); err != nil {
		return nil, err
	}
	s.retention = o.startRetention(ctx)
	s.acks = o.startAcks()
	s.lookups = coalesce.New(maxLookups, o.lookUp)
	s.ackChecked = coalesce.New(maxLookups, func(ctx context.Context, ids []uuid.UUID) ([]struct{}, error) { return o.ackChecked(ctx, s, ids) })
	s.producer, err = o.config.Broker.OpenTransactionProducer(ctx, o.config.Group, func(ctx context.Context, c broker.Check) (d broker.Decision, done func(error)) {
		if err := guard.Call(func() { d, done = o.check(ctx, s, c) }); err != nil {
			o.faults.Report("check-back", err)
			return broker.Unknown, nil
		}
		return d, done
	})
	if err != nil {
		s.acks.stop(ctx)
		s.retention.stop()
		return nil, err
	}
	s.rejections = o.startRejections()
	s.relay = o.startRelay(s)
	s.paths = o.newPathSelector(s.relay)
	s.sweep = o.startSweep(s)
	s.resender = o.startResender(s.database)
	s.discards = o.startDiscardReporter(s.database)
	return s, nil
}

// Stop closes the connection for check-backs, sends what the relay has in memory and writes acknowledgements, until ctx
// ends. Events that are left then stay owed and are sent by another process, or after the next Start. Transactions that are
// still open can no longer publish. Stopping a stopped outbox does nothing.
func (o *Outbox) Stop(ctx context.Context) error {
	o.turn.Lock()
	defer o.turn.Unlock()
	s := o.running.Swap(nil)
	if s == nil {
		return nil
	}
	// What produces work ends before what does it: the relay needs the acks, the sweep needs the relay.
	s.resender.stop(ctx)
	s.discards.stop(ctx)
	s.sweep.stop()
	err := s.producer.Close(ctx)
	s.relay.stop(ctx)
	s.acks.stop(ctx)
	s.rejections.stop(ctx)
	s.retention.stop()
	if err != nil {
		return fmt.Errorf("stop outbox: %w", err)
	}
	return nil
}

// current returns the services, or nil if the outbox is not started.
func (o *Outbox) current() *services { return o.running.Load() }

// Within runs fn in a transaction and commits it if fn returns nil. If fn returns an error, or panics, it rolls back; fn's
// error is returned as it is.
//
// nil means that the transaction is committed. An error that matches rocketflow.ErrCommitUnknown means that nobody knows
// whether it is, as Postgres' answer was lost: look up its effects before you run it again. After any other error it is not
// committed, unless fn has committed it itself. In each case its events are sent if and only if it is committed. An fn that
// rolls the transaction back must return an error.
func (o *Outbox) Within(ctx context.Context, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return o.WithinTx(ctx, pgx.TxOptions{}, fn)
}

// WithinTx is Within with options. Above the isolation level read committed two transactions that publish to one stream
// can't both commit: the later one fails with Postgres' serialization error and must be run again.
func (o *Outbox) WithinTx(ctx context.Context, options pgx.TxOptions, fn func(ctx context.Context, tx rocketflow.Tx) error) (err error) {
	tx, err := o.begin(ctx, options)
	if err != nil {
		return err
	}
	// After a commit this does nothing. It runs for panics and for runtime.Goexit, too.
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if tx.shared.committed {
		return nil
	}
	if err = tx.Commit(ctx); errors.Is(err, pgx.ErrTxClosed) && tx.shared.err != nil {
		err = tx.shared.err // of fn's own Commit, which fn ignores
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Begin starts a transaction for callers that can't use Within. It must be ended with Commit or Rollback. BEGIN is sent with
// the first statement, which then returns the error if Postgres refuses the options.
func (o *Outbox) Begin(ctx context.Context, options pgx.TxOptions) (rocketflow.Tx, error) {
	tx, err := o.begin(ctx, options)
	if err != nil {
		return nil, err // and no Tx that is not nil
	}
	return tx, nil
}

func (o *Outbox) begin(ctx context.Context, options pgx.TxOptions) (*tx, error) {
	if o.current() == nil {
		return nil, ErrNotStarted
	}
	conn, err := o.config.Pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	lazy := lazytx.New(conn, options)
	s, t := o.newTransaction(lazy, lazy)
	// The caller's commit statement may be anything, such as PREPARE TRANSACTION.
	s.eager, s.unproven = options.CommitQuery != "", options.CommitQuery != ""
	return t, nil
}

// newEvents makes events of payloads and reports which take no place in a stream.
func (o *Outbox) newEvents(payloads []rocketflow.Payload) (events []rocketflow.Event, unordered []bool, err error) {
	events, unordered = make([]rocketflow.Event, len(payloads)), make([]bool, len(payloads))
	for i, p := range payloads {
		if events[i], err = o.newEvent(p); err != nil {
			return nil, nil, fmt.Errorf("publish event %d of %d: %w", i+1, len(payloads), err)
		}
		unordered[i] = events[i].Subject == "" || p.EventMeta().Unordered
	}
	return events, unordered, nil
}

func (o *Outbox) newEvent(p rocketflow.Payload) (rocketflow.Event, error) {
	e, err := wire.NewEvent(p)
	if err != nil {
		return e, err
	}
	if len(o.config.Topics) > 0 && e.Topic != rocketflow.MissingEventsTopic && !slices.Contains(o.config.Topics, e.Topic) {
		return e, valid.Fieldf("topic", "%s is not among the known topics %s: see outbox.Config.Topics",
			printable.Quote(e.Topic, printable.Name), printable.Quotes(o.config.Topics, printable.Reason/4))
	}
	if len(e.Body) > o.config.MaxBody {
		return e, valid.Fieldf("body", "%d bytes of %s, at most %d are allowed", len(e.Body), e.Type, o.config.MaxBody)
	}
	if err := o.admitTopic(e.Topic); err != nil {
		return e, err
	}
	e.ID, e.Source = o.stamp(e.ID), o.config.Source
	return e, nil
}
