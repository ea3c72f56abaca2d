package handlers

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// memory is a broker that fulfils its contract and no more: it calls handlers concurrently, in any order if set to,
// delivers twice, and brings back what a handler refused.
type memory struct {
	shuffle   bool
	duplicate float64 // the part of messages that come twice

	mu           sync.Mutex
	log          []broker.Message
	groups       map[string]*fakeGroup
	refused      error // of Subscribe
	beginsOldest bool  // Subscribe refuses another Begin
}

type fakeGroup struct {
	mu      sync.Mutex
	topics  []string
	pending []broker.Delivery
	changed chan struct{} // closed and renewed at each change
	open    int           // delivered, not settled
	errors  int
}

type member struct {
	group *fakeGroup
	quit  chan struct{}
	once  sync.Once
	pump  sync.WaitGroup
	calls sync.WaitGroup
}

func newMemory() *memory { return &memory{groups: map[string]*fakeGroup{}} }

func (m *memory) publish(events ...rocketflow.Event) {
	for _, e := range events {
		m.send(wire.MessageOf(e))
	}
}

func (m *memory) send(messages ...broker.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, messages...)
	for _, g := range m.groups {
		g.add(m.duplicate, messages)
	}
}

func (g *fakeGroup) add(duplicate float64, messages []broker.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, msg := range messages {
		if !slices.Contains(g.topics, msg.Topic) {
			continue
		}
		g.pending = append(g.pending, broker.Delivery{Message: msg, Attempt: 1})
		if rand.Float64() < duplicate {
			g.pending = append(g.pending, broker.Delivery{Message: msg, Attempt: 2})
		}
	}
	g.change()
}

func (g *fakeGroup) change() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// idle reports whether everything was settled.
func (m *memory) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		g.mu.Lock()
		n := len(g.pending) + g.open
		g.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	return true
}

func (m *memory) Subscribe(_ context.Context, s broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.refused != nil:
		return nil, m.refused
	case m.beginsOldest && !s.Begin.Oldest():
		return nil, broker.ErrBeginsOldest
	}
	g := m.groups[s.Group]
	if g == nil {
		g = &fakeGroup{topics: s.Topics, changed: make(chan struct{})}
		m.groups[s.Group] = g
		g.add(m.duplicate, m.log)
	}
	c := &member{group: g, quit: make(chan struct{})}
	slots := make(chan struct{}, s.MaxInFlight)
	c.pump.Go(func() {
		for {
			select {
			case slots <- struct{}{}:
			case <-c.quit:
				return
			}
			d, ok := c.next(m.shuffle)
			if !ok {
				return
			}
			c.calls.Go(func() {
				err := h(context.Background(), d)
				<-slots
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.open--; err != nil {
					d.Attempt++
					g.errors++
					g.pending = append(g.pending, d)
				}
				g.change()
			})
		}
	})
	return c, nil
}

func (c *member) next(shuffle bool) (broker.Delivery, bool) {
	for {
		c.group.mu.Lock()
		select {
		case <-c.quit:
			c.group.mu.Unlock()
			return broker.Delivery{}, false
		default:
		}
		if n := len(c.group.pending); n > 0 {
			i := 0
			if shuffle {
				i = rand.N(n)
			}
			d := c.group.pending[i]
			c.group.pending = slices.Delete(c.group.pending, i, i+1)
			c.group.open++
			c.group.mu.Unlock()
			return d, true
		}
		changed := c.group.changed
		c.group.mu.Unlock()
		select {
		case <-changed:
		case <-c.quit:
			return broker.Delivery{}, false
		}
	}
}

func (c *member) Stop(ctx context.Context) error {
	c.once.Do(func() { close(c.quit) })
	c.pump.Wait()
	return background.Wait(ctx, &c.calls)
}

func (c *member) Err() error { return nil }

// plainTransactor publishes into memory after the commit: all that these tests need of an outbox.
type plainTransactor struct {
	pool *pgxpool.Pool
	to   *memory
}

type plainTx struct {
	pgx.Tx
	after  []func()
	events []rocketflow.Event
}

func (t *plainTx) Publish(_ context.Context, payloads ...rocketflow.Payload) error {
	for _, p := range payloads {
		e, err := wire.NewEvent(p)
		if err != nil {
			return err
		}
		e.Source = "test"
		t.events = append(t.events, e)
	}
	return nil
}

func (t *plainTx) AfterCommit(fn func()) { t.after = append(t.after, fn) }

func (p *plainTransactor) Within(ctx context.Context, fn func(context.Context, rocketflow.Tx) error) error {
	return p.WithinTx(ctx, pgx.TxOptions{}, fn)
}

func (p *plainTransactor) WithinTx(ctx context.Context, options pgx.TxOptions, fn func(context.Context, rocketflow.Tx) error) error {
	var tx *plainTx
	err := pgx.BeginTxFunc(ctx, p.pool, options, func(inner pgx.Tx) error {
		tx = &plainTx{Tx: inner}
		return fn(ctx, tx)
	})
	if err != nil {
		return err
	}
	p.to.publish(tx.events...)
	for _, fn := range tx.after {
		fn()
	}
	return nil
}
