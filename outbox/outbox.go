package outbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/coalesce"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/lazytx"
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

// Outbox publishes events in Postgres transactions and sends them to the broker once these have committed. Create it with
// New. All methods are safe for concurrent use.
type Outbox struct {
	config   Config
	queries  queries.Set
	listener *Listener
	hasSent  bool // listener.Sent does something: the copy of the events is only made then
	log      *slog.Logger

	backlog        backlog
	expedited      expedited
	hot            hotStreams
	exposed        exposedConns
	panics         guard.Reporter // of the application's functions
	loggedReasons  loggedReasons
	checkLog       checkLog
	skewed         atomic.Bool  // it was logged that the clock differs from Postgres'
	skew           atomic.Int64 // how far Postgres' clock is ahead of it, in nanoseconds; 0 unless they differ by more than maxSkew
	requestsAreOff sync.Once    // logs that the topic of missing-events requests doesn't exist

	lifecycle sync.Mutex // held by a Start or a Stop from its beginning to its end
	running   atomic.Pointer[services]
}

// services are the background services of an outbox, which exist between Start and Stop.
type services struct {
	database   string
	producer   broker.TransactionProducer // nil if the broker has no half messages; then paths chooses none
	paths      *pathSelector
	acks       *acker
	rejections *batcher[rejectedEvent]
	relay      *relay
	sweep      *sweeper
	retention  *retainer
	resender   *resender
	discards   *discardReporter
	checking   inProgress
	lookups    *coalesce.Coalescer[uuid.UUID, storedEvent] // of check-backs
	ackChecked *coalesce.Coalescer[uuid.UUID, struct{}]    // what check-backs have committed
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
	o.panics.Logger, o.panics.Part = c.Logger, "outbox"
	o.hasSent = c.Listener != nil && c.Listener.Sent != nil
	o.listener = Tee(o.backlog.listener(), o.expedited.listener(), c.Listener.guarded(&o.panics))
	return o, nil
}

// ErrNotStarted is returned before Start and after Stop by methods that publish.
var ErrNotStarted = errors.New("outbox is not started")

// Start verifies the schema and the topics, then starts the check-backs, the relay, the sweep and retention. ctx bounds the
// start only. Starting a started outbox does nothing.
func (o *Outbox) Start(ctx context.Context) error {
	o.lifecycle.Lock()
	defer o.lifecycle.Unlock()
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
	if s.retention, err = o.startRetention(ctx); err != nil {
		return nil, err
	}
	s.acks = o.startAcks()
	s.lookups = coalesce.New(maxLookups, o.lookUp)
	s.ackChecked = coalesce.New(maxLookups, func(ctx context.Context, ids []uuid.UUID) ([]struct{}, error) { return o.ackChecked(ctx, s, ids) })
	s.producer, err = o.config.Broker.OpenTransactionProducer(ctx, o.config.Group, func(ctx context.Context, c broker.Check) (d broker.Decision, done func(error)) {
		if err := guard.Call(func() { d, done = o.check(ctx, s, c) }); err != nil {
			o.panics.Report("check-back", err)
			return broker.Unknown, nil
		}
		return d, done
	})
	path := o.config.Path
	if errors.Is(err, broker.ErrNoHalfMessages) {
		path, err = Relay, o.acceptRelay(err)
	}
	if err != nil {
		s.acks.stop(ctx)
		s.retention.stop()
		return nil, err
	}
	s.rejections = o.startRejections()
	s.relay = o.startRelay(s)
	s.paths = o.newPathSelector(path, s.relay)
	s.sweep = o.startSweep(s)
	s.resender = o.startResender(s.database)
	if s.producer != nil {
		s.discards = o.startDiscardReporter(s.database)
	}
	return s, nil
}

// acceptRelay returns an error if Config.Path doesn't allow the relay path, which is the only one because of reason.
func (o *Outbox) acceptRelay(reason error) error {
	if o.config.Path == HalfMessages {
		return valid.Wrap("outbox.Config.Path", "half messages can't be used: want Auto or Relay", reason)
	}
	o.log.Info("half messages aren't used with this broker; events are sent after their commit", keyError, reason)
	return nil
}

// Stop closes the connection for check-backs, sends the events in the relay's memory and writes acknowledgements, until ctx
// ends. Events that are left then stay owed and are sent by another process, or after the next Start. Transactions that are
// still open can no longer publish. Stopping a stopped outbox does nothing.
func (o *Outbox) Stop(ctx context.Context) error {
	o.lifecycle.Lock()
	defer o.lifecycle.Unlock()
	s := o.running.Swap(nil)
	if s == nil {
		return nil
	}
	// Producers of work stop before its consumers: the sweep gives events to the relay, the relay gives acknowledgements to acks.
	s.resender.stop(ctx)
	s.discards.stop(ctx)
	s.sweep.stop()
	var err error
	if s.producer != nil {
		err = s.producer.Close(ctx)
	}
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
// nil means that the transaction is committed. An error that matches rocketflow.ErrCommitUnknown means that the outcome is
// unknown because Postgres' response was lost: look up the transaction's effects before you run it again. After any other
// error it is not committed, unless fn has committed it itself. In each case its events are sent if and only if it is
// committed. An fn that rolls the transaction back must return an error.
//
// The transaction has the database's default isolation level. After a conflict with another transaction the error, of fn or of
// the commit, matches a *pgconn.PgError with the code 40001 (serialization failure) or 40P01 (deadlock): call Within again.
func (o *Outbox) Within(ctx context.Context, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return o.WithinTx(ctx, pgx.TxOptions{}, fn)
}

// WithinTx is Within with options. Above the isolation level read committed, concurrent transactions that publish to one stream
// can't both commit: the later one fails with the code 40001 and must be run again.
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

// newEvents makes events of payloads and reports which of them have no order.
func (o *Outbox) newEvents(ctx context.Context, payloads []rocketflow.Payload) (events []rocketflow.Event, unordered []bool, err error) {
	events, unordered = make([]rocketflow.Event, len(payloads)), make([]bool, len(payloads))
	for i, p := range payloads {
		if events[i], err = o.newEvent(ctx, p); err != nil {
			return nil, nil, fmt.Errorf("publish event %d of %d: %w", i+1, len(payloads), err)
		}
		unordered[i] = events[i].Subject == "" || p.EventMeta().Unordered
	}
	return events, unordered, nil
}

func (o *Outbox) newEvent(ctx context.Context, p rocketflow.Payload) (rocketflow.Event, error) {
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
	if o.config.OnPublish != nil {
		o.config.OnPublish(ctx, &e)
		return e, wire.Validate(e)
	}
	return e, nil
}
