package frame

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// owing is the measurement of owed events that only the sweep sends, as if their process had died after the commit, and of new
// events that are published meanwhile.
type owing struct {
	single           []time.Duration // commit to handler of events that come one by one
	backlog          int
	drained          time.Duration   // from the last commit of a backlog to the last arrival
	before, meantime []time.Duration // commit to handler of new events: before there was a backlog, and until it was drained
}

const (
	owedSingles = 40
	owedEach    = 100 // events of a transaction of the backlog
	owedCallers = 4   // of new events, each some 50 a second
	owedPause   = 20 * time.Millisecond
)

// owed measures rocketflow with its default configuration.
func (b *Bed) owed(ctx context.Context, o Options) (owing, error) {
	r := owing{backlog: o.Backlog}
	fresh, abandoned := NewStopwatch(), &abandoned{Stopwatch: NewStopwatch(), waiting: map[string][]string{}, ids: map[string]bool{}}
	g, err := openOutbox(ctx, b, outbox.Config{Listener: &outbox.Listener{
		Recorded:  abandoned.record,
		Committed: func(events []rocketflow.Event) { fresh.Commit(events[0].ID.String()) },
	}}, func(id string) {
		if abandoned.has(id) {
			abandoned.Arrive(id)
		} else {
			fresh.Arrive(id)
		}
	})
	if err != nil {
		return r, err
	}
	defer g.close()

	way := &Way{Publish: func(ctx context.Context, account string, cents int64) error {
		time.Sleep(owedPause)
		return within(g.box, g.topic)(ctx, account, cents)
	}}
	if err := Warm(ctx, way, fresh, owedCallers, 0); err != nil {
		return r, err
	}
	for i := range owedSingles {
		if err := abandoned.publish(ctx, b, g, fmt.Sprintf("single-%d", i), 1); err != nil {
			return r, err
		}
		time.Sleep(37 * time.Millisecond) // covers all phases of the sweep's interval
	}
	if err := Wait(ctx, abandoned.Stopwatch); err != nil {
		return r, err
	}
	r.single = abandoned.took
	abandoned.reset()

	load := StartLoad(ctx, way, owedCallers)
	time.Sleep(o.HoldDuration)
	r.before = fresh.take()
	var group errgroup.Group
	group.SetLimit(owedCallers)
	for i := 0; i < o.Backlog; i += owedEach {
		group.Go(func() error {
			return abandoned.publish(ctx, b, g, fmt.Sprintf("account-%d", i/owedEach%64), min(owedEach, o.Backlog-i))
		})
	}
	if err := group.Wait(); err != nil {
		return r, err
	}
	fresh.take()
	begin := time.Now()
	if err := Wait(ctx, abandoned.Stopwatch); err != nil {
		return r, err
	}
	r.drained = time.Since(begin)
	r.meantime = fresh.take()
	if _, err := load.Stop(); err != nil {
		return r, err
	}
	fmt.Fprintf(os.Stderr, "owed: %d events drained in %v\n", r.backlog, r.drained.Round(time.Millisecond))
	return r, Wait(ctx, fresh)
}

// abandoned publishes events in joined transactions, of whose commit the outbox is not notified.
type abandoned struct {
	*Stopwatch
	mu      sync.Mutex
	waiting map[string][]string // of transactions that aren't committed yet, by account
	ids     map[string]bool
}

const abandonedType = "account.abandoned"

func (a *abandoned) record(events []rocketflow.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range events {
		if id := e.ID.String(); e.Type == abandonedType {
			a.waiting[e.Subject] = append(a.waiting[e.Subject], id)
			a.ids[id] = true
		}
	}
}

func (a *abandoned) has(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ids[id]
}

// publish publishes in a transaction of whose commit the outbox is not notified. Calls for one account must not be concurrent.
func (a *abandoned) publish(ctx context.Context, b *Bed, g *openedOutbox, account string, events int) error {
	inner, err := b.Pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = inner.Rollback(context.WithoutCancel(ctx)) }()
	payloads := make([]rocketflow.Payload, events)
	for i := range payloads {
		payloads[i] = rocketflow.Event{
			Topic: g.topic, Type: abandonedType, Subject: account, ContentType: rocketflow.ContentTypeJSON, Body: []byte(`{"note":"` + Note + `"}`),
		}
	}
	if err := g.box.Join(inner).Publish(ctx, payloads...); err != nil {
		return err
	}
	if err := inner.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range a.waiting[account] {
		a.Commit(id)
	}
	delete(a.waiting, account)
	return nil
}
