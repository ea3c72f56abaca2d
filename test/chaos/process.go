package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// settings is the configuration of a process.
type settings struct {
	Name       string // of the instance; also its client and application name
	Database   string // URL
	SearchPath string
	Schema     string
	NameServer string
	Namespace  string
	Path       outbox.Path
	Buffer     int // outbox.Config.RelayBuffer
	Consumes   bool
	Real       bool // on a real broker, with the machine's clock
	Own        bool // sends and consumes by rocketmq.Own

	Types  []string      // event types that this version handles besides baseEventType; echo publishes events of the last one
	Skew   time.Duration // by how much its clock is ahead of Postgres'
	Faults []faultKind   // kinds that are selected, for the configuration that they need
}

// process is a process of the service: an outbox, and a router if it consumes.
type process struct {
	pool   *pgxpool.Pool
	pgLink *pgLink
	client *crashable
	box    *outbox.Outbox
	router *handlers.Router // nil if it only publishes
	ledger ledger

	settings settings
	hooks    hooks

	mu             sync.Mutex
	armed          map[action]*crashTrap
	failed         map[string]int
	hangCalls      map[string]int
	released       map[uint64]bool // schedules whose handlers stop hanging
	wakeHanging    chan struct{}   // closed and replaced by each release
	hangingCalls   int             // handler calls that hang now
	afterCommitted map[string]bool // events whose AfterCommit function ran
	ended          bool            // the process stops, so no handler hangs any more
}

// hooks are called by a process at the points where a fault is injected or an event is reported.
type hooks struct {
	do                map[action]func(*process) // at the crash point that is armed for the action
	recordAfterCommit func(event string)        // the AfterCommit function of an event ran
}

// action is a fault of a process at a crash point.
type action string

const (
	crash  action = "crash"
	freeze action = "freeze"
)

type crashTrap struct {
	step string
	left int // it fires when the step is reached for the left-th time
}

// Crash points: the steps of publishing and of handling at which a process can crash.
var (
	publishingCrashPoints = []string{"recorded", "prepared", "committed", "ended", "relayed", "acked", "checked", "swept"}
	handlingCrashPoints   = []string{"received", "ran", "handled", "recorded", "committed", "relayed", "acked"}
)

// sweepingCrashPoint is the step at which the sweep has sent an event and goes on.
const sweepingCrashPoint = "sweeping"

// startProcess starts a process and returns when it runs.
func startProcess(ctx context.Context, s settings, clock rocketflow.Clock, h hooks) (*process, error) {
	p := &process{
		pgLink: new(pgLink), settings: s, hooks: h, ledger: openLedger(s.Schema), armed: map[action]*crashTrap{},
		failed: map[string]int{}, hangCalls: map[string]int{}, released: map[uint64]bool{}, wakeHanging: make(chan struct{}), afterCommitted: map[string]bool{},
	}
	if err := p.start(ctx, s, clock); err != nil {
		p.stop(0)
		return nil, err
	}
	return p, nil
}

func (p *process) start(ctx context.Context, s settings, clock rocketflow.Clock) error {
	clock = skewedBy(clock, s.Skew)
	config, err := pgxpool.ParseConfig(s.Database)
	if err != nil {
		return err
	}
	config.ConnConfig.RuntimeParams["search_path"] = s.SearchPath
	config.ConnConfig.RuntimeParams["application_name"] = s.Name
	config.ConnConfig.DialFunc = p.pgLink.dial
	config.ConnConfig.ConnectTimeout = 2 * time.Second
	config.MaxConns = 6
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: []string{s.NameServer}, Service: s.Name, Namespace: s.Namespace, SendTimeout: s.pick(200*time.Millisecond, time.Second),
		StopQuietPeriod: s.pick(-1, 0), Clock: clock, // the embedded broker forgets who is gone
		Logger: slog.New(slog.DiscardHandler), Transport: s.transport(),
	})
	if err != nil {
		return err
	}
	p.client = &crashable{Client: client}
	p.box, err = outbox.New(outbox.Config{
		Pool: p.pool, Broker: p.client, Source: source, Schema: s.Schema, Path: s.Path, MaxHalfMessages: 2, RelayBuffer: s.Buffer,
		HalfTimeout: s.pick(120*time.Millisecond, 500*time.Millisecond), EndTimeout: s.pick(150*time.Millisecond, 500*time.Millisecond),
		SweepInterval: s.pick(time.Second, 200*time.Millisecond), SweepGrace: s.pick(3*time.Second, 1500*time.Millisecond),
		MaxTransaction: s.pick(20*time.Second, 10*time.Second), Clock: clock, Listener: publishingListener(p.reached),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := p.box.Start(ctx); err != nil {
		return err
	}
	if !s.Consumes {
		return nil
	}
	handling := handlers.Config{
		Pool: p.pool, Transactor: p.box, Broker: p.client, Source: source, Schema: s.Schema, Requester: p.box, Lanes: 3, GapWait: 50 * time.Millisecond,
		Clock: clock, Listener: handlingListener(p.reached), Retry: handlers.RetryPolicy{Base: s.pick(time.Second, 100*time.Millisecond), Max: 5 * time.Second, Attempts: 20},
		Logger: slog.New(slog.DiscardHandler),
	}
	s.faultsConfig(&handling)
	p.router, err = handlers.New(handling)
	if err != nil {
		return err
	}
	for _, eventType := range append([]string{baseEventType}, s.Types...) {
		p.router.Handle(audit, topicFirst, eventType, p.audit)
		p.router.Handle(audit, topicFollow, eventType, p.audit)
		p.router.Handle(echo, topicFirst, eventType, p.echo)
	}
	return p.router.Start(ctx)
}

func (s settings) transport() rocketmq.Transport {
	if s.Own {
		return rocketmq.Own
	}
	return rocketmq.ClientGo
}

func (s settings) pick(embedded, onReal time.Duration) time.Duration {
	if s.Real {
		return onReal
	}
	return embedded
}

func publishingListener(step func(string)) *outbox.Listener {
	ok := func(name string, err error) {
		if err == nil {
			step(name)
		}
	}
	return &outbox.Listener{
		Recorded:  func([]rocketflow.Event) { step("recorded") },
		Prepared:  func(i outbox.PreparedInfo) { ok("prepared", i.Err) },
		Committed: func([]rocketflow.Event) { step("committed") },
		Ended:     func(i outbox.EndedInfo) { ok("ended", i.Err) },
		Relayed: func(i outbox.RelayedInfo) {
			ok("relayed", i.Err)
			if i.Swept {
				ok(sweepingCrashPoint, i.Err)
			}
		},
		Acked: func(i outbox.AckedInfo) { ok("acked", i.Err) },
		Checked: func(i outbox.CheckedInfo) {
			if i.Decision == broker.Commit {
				step("checked")
			}
		},
		Swept: func(i outbox.SweptInfo) {
			if i.Sent > 0 {
				step("swept")
			}
		},
	}
}

func handlingListener(step func(string)) *handlers.Listener {
	return &handlers.Listener{
		Received:  func(handlers.ReceivedInfo) { step("received") },
		Ran:       func(handlers.BatchInfo) { step("ran") },
		Committed: func(handlers.BatchInfo) { step("handled") },
	}
}

// arm injects an action when a step is reached for the nth time from now on. 0 disarms it.
func (p *process) arm(a action, step string, nth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[a] = &crashTrap{step, nth}
}

func (p *process) reached(name string) {
	for _, a := range []action{crash, freeze} {
		if p.due(a, name) {
			p.hooks.do[a](p)
		}
	}
}

func (p *process) due(a action, step string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.armed[a]
	if t == nil || step != t.step || t.left == 0 {
		return false
	}
	t.left--
	return t.left == 0
}

// stop stops all parts of the process, crashed or not, and waits for them up to patience.
func (p *process) stop(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.releaseAllHanging()
	if p.router != nil {
		_ = p.router.Stop(ctx) // events that were not handled are delivered again
	}
	if p.box != nil {
		_ = p.box.Stop(ctx)
	}
	if p.client != nil {
		_ = p.client.Close(ctx)
	}
	p.pgLink.shutDown()
	if p.pool != nil {
		p.pool.Close()
	}
}

var errOnPurpose = errors.New("on purpose")

func (p *process) audit(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	n, err := wire.DecodeBody[testEvent](e)
	if err != nil {
		return err
	}
	if !n.HangLate {
		p.hang(n)
	}
	if err := p.ledger.handle(ctx, tx, audit, n, e.Sequence); err != nil {
		return err
	}
	if n.HangLate {
		p.hang(n)
	}
	if p.shouldFail(audit, n, n.Fail) {
		return errOnPurpose
	}
	return nil
}

// shouldFail reports whether a consumer's handler fails this time. It fails the given number of times in each process.
func (p *process) shouldFail(consumer string, n testEvent, times int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := consumer + " " + n.Name
	if p.failed[key] >= times {
		return false
	}
	p.failed[key]++
	return true
}

func (p *process) echo(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	n, err := wire.DecodeBody[testEvent](e)
	if err != nil {
		return err
	}
	if err := p.ledger.handle(ctx, tx, echo, n, e.Sequence); err != nil || !n.Follow {
		return err
	}
	follower := n.follower(p.settings.followerType())
	if !n.Nested {
		return p.publish(ctx, tx, follower)
	}
	if err := p.publishNested(ctx, tx, follower); err != nil {
		return err
	}
	if p.shouldFail(echo, n, n.EchoFail) {
		return errOnPurpose // the transaction rolls back, and with it what the savepoint published
	}
	return nil
}

// publish publishes an event, records that in the ledger, and registers an AfterCommit function.
func (p *process) publish(ctx context.Context, tx rocketflow.Tx, n testEvent) error {
	if err := p.ledger.publish(ctx, tx, n); err != nil {
		return err
	}
	tx.AfterCommit(func() { p.recordAfterCommit(n.Name) })
	return nil
}

// do runs a transaction. After an error the transaction may have committed or not: the ledger shows it.
func (p *process) do(ctx context.Context, t transaction) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if t.joins() {
		err = p.join(ctx, t)
	} else {
		err = p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return p.run(ctx, tx, t) })
	}
	if err != nil {
		return err
	}
	return p.checkAfterCommit(t)
}

func (p *process) run(ctx context.Context, tx rocketflow.Tx, t transaction) error {
	if t.Behavior == heldOpen {
		if _, err := tx.Exec(ctx, "INSERT INTO opened VALUES ($1)", t.Name); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1)", t.Lock); err != nil {
			return err
		}
	}
	for _, n := range t.Events {
		if err := p.publish(ctx, tx, n); err != nil {
			return err
		}
	}
	var err error
	switch t.Behavior {
	case fails:
		return errOnPurpose
	case panics:
		panic(errOnPurpose)
	case failsInCommit:
		_, err = tx.Exec(ctx, "INSERT INTO commit_fails VALUES ($1)", 1)
	case hangsInCommit, hangsInCommitAborted:
		_, err = tx.Exec(ctx, "INSERT INTO commit_waits VALUES ($1)", t.Lock)
	case savepoint:
		err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			n := t.Events[0]
			n.Name += "/savepoint"
			if err := p.publish(ctx, inner.(rocketflow.Tx), n); err != nil {
				return err
			}
			return errOnPurpose
		})
		if errors.Is(err, errOnPurpose) {
			err = nil
		}
	}
	return err
}
