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
	Gear       outbox.Gear
	Buffer     int // of the relay
	Consumes   bool
	Real       bool // by the machine's clock and on a real broker
}

// process is a service: an outbox, and handlers where it consumes.
type process struct {
	pool   *pgxpool.Pool
	gate   *gate
	client *mortal
	box    *outbox.Outbox
	router *handlers.Router // nil: it only publishes
	ledger ledger

	mu     sync.Mutex
	at     string // the step to die at
	left   int    // when it has come so often; 0: live on
	failed map[string]int
}

// steps are the moments at which a process can die: those of publishing, and those of handling.
var (
	publishingSteps = []string{"recorded", "prepared", "committed", "ended", "relayed", "acked", "checked", "swept"}
	handlingSteps   = []string{"received", "ran", "handled", "recorded", "committed", "relayed", "acked"}
)

// startProcess returns when it runs. die ends it at the step that it was told.
func startProcess(ctx context.Context, s settings, clock rocketflow.Clock, die func(*process)) (*process, error) {
	p := &process{gate: new(gate), failed: map[string]int{}, ledger: openLedger(s.Schema)}
	if err := p.start(ctx, s, clock, die); err != nil {
		p.stop(0)
		return nil, err
	}
	return p, nil
}

func (p *process) start(ctx context.Context, s settings, clock rocketflow.Clock, die func(*process)) error {
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
		StopRest: s.pick(-1, 0), Clock: clock, // the embedded broker forgets who is gone
	})
	if err != nil {
		return err
	}
	p.client = &mortal{Client: client}
	step := func(name string) {
		if p.due(name) {
			die(p)
		}
	}
	p.box, err = outbox.New(outbox.Config{
		Pool: p.pool, Broker: p.client, Source: "chaos", Schema: s.Schema, Gear: s.Gear, MaxHalves: 2, RelayBuffer: s.Buffer,
		HalfTimeout: s.pick(120*time.Millisecond, 500*time.Millisecond), EndTimeout: s.pick(150*time.Millisecond, 500*time.Millisecond),
		SweepInterval: s.pick(time.Second, 200*time.Millisecond), SweepGrace: s.pick(3*time.Second, 1500*time.Millisecond),
		MaxTransaction: s.pick(20*time.Second, 10*time.Second), Clock: clock, Listener: publishingListener(step),
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
	p.router, err = handlers.New(handlers.Config{
		Pool: p.pool, Transactor: p.box, Broker: p.client, Schema: s.Schema, Refill: p.box, Lanes: 3, GapWait: 50 * time.Millisecond,
		Clock: clock, Listener: handlingListener(step), Retry: handlers.RetryPolicy{Base: s.pick(time.Second, 100*time.Millisecond), Max: 5 * time.Second, Attempts: 20},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	p.router.Handle(audit, topicFirst, noteType, p.audit)
	p.router.Handle(audit, topicFollow, noteType, p.audit)
	p.router.Handle(echo, topicFirst, noteType, p.echo)
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
		Relayed:   func(i outbox.RelayedInfo) { ok("relayed", i.Err) },
		Acked:     func(i outbox.AckedInfo) { ok("acked", i.Err) },
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

// arm has the process die when a step comes for the nth time.
func (p *process) arm(step string, nth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.left = step, nth
}

func (p *process) due(step string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if step != p.at || p.left == 0 {
		return false
	}
	p.left--
	return p.left == 0
}

// stop ends all that runs here, whether the process is dead or not, and waits for it.
func (p *process) stop(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
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
	n, err := rocketflow.Decode[note](e)
	if err != nil {
		return err
	}
	if err := p.ledger.handle(ctx, tx, audit, n, e.Sequence); err != nil {
		return err
	}
	p.mu.Lock()
	fails := p.failed[n.Name] < n.Fail
	if fails {
		p.failed[n.Name]++
	}
	p.mu.Unlock()
	if fails {
		return errOnPurpose
	}
	return nil
}

func (p *process) echo(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	n, err := rocketflow.Decode[note](e)
	if err != nil {
		return err
	}
	if err := p.ledger.handle(ctx, tx, echo, n, e.Sequence); err != nil || !n.Follow {
		return err
	}
	return p.ledger.publish(ctx, tx, n.follower())
}

// do runs a transaction. An error may mean anything: the ledger tells what committed.
func (p *process) do(ctx context.Context, t transaction) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	switch t.Manner {
	case joined, joinedRaw, nested, nestedUndone:
	case nestedOwn:
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := p.joinSavepoint(ctx, tx, t); err != nil {
				return err
			}
			return errOnPurpose
		})
	default:
		return p.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return p.run(ctx, tx, t) })
	}
	inner, err := p.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = inner.Rollback(context.WithoutCancel(ctx)) }() // nothing after a commit
	if t.Manner == nested || t.Manner == nestedUndone {
		if err := p.joinSavepoint(ctx, inner, t); err != nil {
			return err
		}
		if t.Manner == nestedUndone {
			return errOnPurpose
		}
		return inner.Commit(ctx)
	}
	tx := p.box.Join(inner)
	if err := p.run(ctx, tx, t); err != nil {
		return err
	}
	if t.Manner == joinedRaw {
		return inner.Commit(ctx)
	}
	return tx.Commit(ctx)
}

// joinSavepoint publishes as a function does that takes a transaction and knows no more of it.
func (p *process) joinSavepoint(ctx context.Context, outer pgx.Tx, t transaction) error {
	inner, err := outer.Begin(ctx)
	if err != nil {
		return err
	}
	tx := p.box.Join(inner)
	if err := p.run(ctx, tx, t); err != nil {
		return err
	}
	return tx.Commit(ctx)
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
		if err := p.ledger.publish(ctx, tx, n); err != nil {
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
	case savepointSQL:
		n := t.Notes[0]
		n.Name += "/savepoint"
		if _, err := tx.Exec(ctx, "SAVEPOINT part"); err != nil {
			return err
		}
		if err := p.ledger.publish(ctx, tx, n); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "ROLLBACK TO SAVEPOINT part")
	case savepoint:
		err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			n := t.Notes[0]
			n.Name += "/savepoint"
			if err := p.ledger.publish(ctx, inner.(rocketflow.Tx), n); err != nil {
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
