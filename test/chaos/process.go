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

// settings are what a process is told at its start.
type settings struct {
	Name       string // of this life of it, as the broker sees it
	Database   string // URL
	SearchPath string
	Schema     string
	NameServer string
	Namespace  string
	Path       outbox.Path
	Buffer     int // of the relay
	Consumes   bool
	Real       bool // by the machine's clock and on a real broker

	Types  []string      // event types that this version handles besides noteType; the follower that echo publishes is of the last
	Skew   time.Duration // how far its clock is ahead of Postgres'
	Faults []fault       // kinds that are on, for what they need in the configuration
}

// process is a service: an outbox, and handlers where it consumes.
type process struct {
	pool   *pgxpool.Pool
	gate   *gate
	client *mortal
	box    *outbox.Outbox
	router *handlers.Router // nil: it only publishes
	ledger ledger

	settings settings
	hooks    hooks

	mu        sync.Mutex
	traps     map[action]*stepTrap
	failed    map[string]int
	hung      map[string]int
	released  map[uint64]bool // schedules whose handlers no longer hang
	unhang    chan struct{}   // closed and replaced with each release
	hangs     int             // calls that hang
	announced map[string]bool // events whose AfterCommit function ran
	ended     bool            // no handler hangs any more
}

// hooks are what a process does to itself, or tells, as told by whoever runs it.
type hooks struct {
	do       map[action]func(*process) // when an armed step comes
	announce func(event string)        // the AfterCommit function of an event ran
}

// action is what befalls a process at a step that was armed.
type action string

const (
	die    action = "die"
	freeze action = "freeze"
)

type stepTrap struct {
	step string
	left int // it goes off when the step has come so often
}

// steps are the moments at which a process can die: those of publishing, and those of handling.
var (
	publishingSteps = []string{"recorded", "prepared", "committed", "ended", "relayed", "acked", "checked", "swept"}
	handlingSteps   = []string{"received", "ran", "handled", "recorded", "committed", "relayed", "acked"}
)

// stepSweeping is a step, too: the sweep has sent an event and goes on.
const stepSweeping = "sweeping"

// startProcess returns when it runs.
func startProcess(ctx context.Context, s settings, clock rocketflow.Clock, h hooks) (*process, error) {
	p := &process{
		gate: new(gate), settings: s, hooks: h, ledger: openLedger(s.Schema), traps: map[action]*stepTrap{},
		failed: map[string]int{}, hung: map[string]int{}, released: map[uint64]bool{}, unhang: make(chan struct{}), announced: map[string]bool{},
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
	config.ConnConfig.DialFunc = p.gate.dial
	config.ConnConfig.ConnectTimeout = 2 * time.Second
	config.MaxConns = 6
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: []string{s.NameServer}, Service: s.Name, Namespace: s.Namespace, SendTimeout: s.pick(200*time.Millisecond, time.Second),
		StopQuietPeriod: s.pick(-1, 0), Clock: clock, // the embedded broker forgets who is gone
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	p.client = &mortal{Client: client}
	p.box, err = outbox.New(outbox.Config{
		Pool: p.pool, Broker: p.client, Source: source, Schema: s.Schema, Path: s.Path, MaxHalfMessages: 2, RelayBuffer: s.Buffer,
		HalfTimeout: s.pick(120*time.Millisecond, 500*time.Millisecond), EndTimeout: s.pick(150*time.Millisecond, 500*time.Millisecond),
		SweepInterval: s.pick(time.Second, 200*time.Millisecond), SweepGrace: s.pick(3*time.Second, 1500*time.Millisecond),
		MaxTransaction: s.pick(20*time.Second, 10*time.Second), Clock: clock, Listener: publishingListener(p.step),
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
		Clock: clock, Listener: handlingListener(p.step), Retry: handlers.RetryPolicy{Base: s.pick(time.Second, 100*time.Millisecond), Max: 5 * time.Second, Attempts: 20},
		Logger: slog.New(slog.DiscardHandler),
	}
	s.faultsConfig(&handling)
	p.router, err = handlers.New(handling)
	if err != nil {
		return err
	}
	for _, eventType := range append([]string{noteType}, s.Types...) {
		p.router.Handle(audit, topicFirst, eventType, p.audit)
		p.router.Handle(audit, topicFollow, eventType, p.audit)
		p.router.Handle(echo, topicFirst, eventType, p.echo)
	}
	return p.router.Start(ctx)
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
				ok(stepSweeping, i.Err)
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

// arm has an action befall the process when a step comes for the nth time; 0: no longer.
func (p *process) arm(a action, step string, nth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps[a] = &stepTrap{step, nth}
}

func (p *process) step(name string) {
	for _, a := range []action{die, freeze} {
		if p.due(a, name) {
			p.hooks.do[a](p)
		}
	}
}

func (p *process) due(a action, step string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.traps[a]
	if t == nil || step != t.step || t.left == 0 {
		return false
	}
	t.left--
	return t.left == 0
}

// stop ends all that runs here, whether the process is dead or not, and waits for it.
func (p *process) stop(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.endHanging()
	if p.router != nil {
		_ = p.router.Stop(ctx) // what is left undone comes again
	}
	if p.box != nil {
		_ = p.box.Stop(ctx)
	}
	if p.client != nil {
		_ = p.client.Close(ctx)
	}
	p.gate.shutDown()
	if p.pool != nil {
		p.pool.Close()
	}
}

var errOnPurpose = errors.New("on purpose")

func (p *process) audit(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	n, err := wire.DecodeBody[note](e)
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
	if p.fails(audit, n, n.Fail) {
		return errOnPurpose
	}
	return nil
}

// fails tells whether a consumer's handler is to fail this time: so often in each process.
func (p *process) fails(consumer string, n note, times int) bool {
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
	n, err := wire.DecodeBody[note](e)
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
	if p.fails(echo, n, n.EchoFail) {
		return errOnPurpose // with it goes what the savepoint published
	}
	return nil
}

// publish publishes an event, writes that down, and has its AfterCommit function tell.
func (p *process) publish(ctx context.Context, tx rocketflow.Tx, n note) error {
	if err := p.ledger.publish(ctx, tx, n); err != nil {
		return err
	}
	tx.AfterCommit(func() { p.announce(n.Name) })
	return nil
}

// do runs a transaction. An error may mean anything: the ledger tells what committed.
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
	return p.wantAnnounced(t)
}

func (p *process) run(ctx context.Context, tx rocketflow.Tx, t transaction) error {
	if t.Manner == held {
		if _, err := tx.Exec(ctx, "INSERT INTO opened VALUES ($1)", t.Name); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1)", t.Lock); err != nil {
			return err
		}
	}
	for _, n := range t.Notes {
		if err := p.publish(ctx, tx, n); err != nil {
			return err
		}
	}
	var err error
	switch t.Manner {
	case fails:
		return errOnPurpose
	case panics:
		panic(errOnPurpose)
	case doomed:
		_, err = tx.Exec(ctx, "INSERT INTO doomed VALUES ($1)", 1)
	case hangs, hangsAborted:
		_, err = tx.Exec(ctx, "INSERT INTO slow VALUES ($1)", t.Lock)
	case savepoint:
		err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			n := t.Notes[0]
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
