package outbox_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/outbox"
)

// askedBroker lets a test ask.
type askedBroker struct {
	*logicBroker
	handler chan broker.Handler
}

func (b *askedBroker) Subscribe(_ context.Context, _ broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	b.handler <- h
	return idleConsumer{}, nil
}

type idleConsumer struct{}

func (idleConsumer) Stop(context.Context) error { return nil }
func (idleConsumer) Err() error                 { return nil }

type asked struct {
	*bundle
	ask     func(v any)
	mu      sync.Mutex
	refills []outbox.RefilledInfo
}

// setupAsked starts an outbox and gives it questions, bodies of any shape.
func setupAsked(t *testing.T, edit func(*outbox.Config)) *asked {
	a := &asked{}
	heard := make(chan broker.Handler, 1)
	a.bundle = setup(t, func(c *outbox.Config) {
		c.Broker = &askedBroker{c.Broker.(*logicBroker), heard}
		c.Listener = &outbox.Listener{Refilled: func(i outbox.RefilledInfo) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.refills = append(a.refills, i)
		}}
		if edit != nil {
			edit(c)
		}
	})
	handler := <-heard
	a.ask = func(v any) {
		t.Helper()
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		question := rocketflow.Event{
			ID: uuid.Must(uuid.NewV7()), Type: rocketflow.Gap{}.EventMeta().Type, Source: "asker", Topic: rocketflow.RefillTopic,
			Time: time.Now(), ContentType: rocketflow.ContentTypeJSON, Body: body,
		}
		if err := handler(t.Context(), broker.Delivery{Message: question.Message()}); err != nil {
			t.Errorf("a question is not settled: %v", err)
		}
	}
	return a
}

// sentAgain returns what went out since n events had.
func (a *asked) sentAgain(n int) []rocketflow.Event { return a.broker.events()[n:] }

func TestRefill(t *testing.T) {
	t.Parallel()
	a := setupAsked(t, func(c *outbox.Config) { c.RefillLimit = 3 })
	for i := range 6 {
		if err := a.credit(t.Context(), "a", int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	first := a.broker.events()
	gap := rocketflow.Gap{Source: "bank", Topic: "accounts", Subject: "a", After: first[0].Sequence, Until: first[3].Sequence}
	a.ask(gap)
	again := a.sentAgain(6)
	if len(again) != 2 || again[0].ID != first[1].ID || again[1].ID != first[2].ID {
		t.Fatalf("sent again %v", again)
	}
	if e, f := again[0], first[1]; e.Previous != f.Previous || e.Database != f.Database || !slices.Equal(e.Body, f.Body) || !e.Time.Equal(f.Time) {
		t.Errorf("%+v came back as %+v", f, e)
	}
	a.ask(gap) // of another consumer, at the same time
	if n := len(a.sentAgain(8)); n != 0 {
		t.Errorf("%d events sent for a question that was just answered", n)
	}
	gap.After, gap.Until = 0, first[5].Sequence
	a.ask(gap)
	if n := len(a.sentAgain(8)); n != 3 {
		t.Errorf("%d events sent for one question, at most 3 are allowed", n)
	}
}

// What is no question, or is none for this outbox, is settled and sends nothing.
func TestRefillOfStrangers(t *testing.T) {
	t.Parallel()
	a := setupAsked(t, func(c *outbox.Config) { c.Topics = []string{"accounts"} })
	for range 2 {
		if err := a.credit(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	// Another service in the same tables.
	if _, err := a.pool.Exec(t.Context(), "UPDATE outbox SET source = 'other' WHERE previous > 0"); err != nil {
		t.Fatal(err)
	}
	good := rocketflow.Gap{Source: "bank", Topic: "accounts", Subject: "a", Until: rocketflow.MaxSequence}
	for _, edit := range []func(*rocketflow.Gap){
		func(g *rocketflow.Gap) { g.Source = "other" },
		func(g *rocketflow.Gap) { g.Source = "" },
		func(g *rocketflow.Gap) { g.Subject = "" },
		func(g *rocketflow.Gap) { g.Subject = "a\x00" },
		func(g *rocketflow.Gap) { g.Topic = "secrets" },
		func(g *rocketflow.Gap) { g.After = -1 },
		func(g *rocketflow.Gap) { g.After = rocketflow.MaxSequence },
	} {
		bad := good
		edit(&bad)
		a.ask(bad)
	}
	a.ask("what?")
	a.ask([]int{1})
	a.ask(map[string]any{"until": "soon"})
	if n := len(a.sentAgain(2)); n != 0 {
		t.Fatalf("%d events sent", n)
	}
	a.ask(good)
	if again := a.sentAgain(2); len(again) != 1 || again[0].Source != "bank" {
		t.Errorf("sent again %v", again)
	}
}

// Retention was faster: the listener says so.
func TestRefillOfWhatIsGone(t *testing.T) {
	t.Parallel()
	a := setupAsked(t, nil)
	for range 4 {
		if err := a.credit(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	events := a.broker.events()
	if _, err := a.pool.Exec(t.Context(), "DELETE FROM outbox WHERE sequence <= $1", events[1].Sequence); err != nil {
		t.Fatal(err)
	}
	gap := rocketflow.Gap{Source: "bank", Topic: "accounts", Subject: "a", After: events[0].Sequence, Until: events[3].Sequence}
	a.ask(gap)
	gap.Until = events[1].Sequence
	a.ask(rocketflow.Gap{Source: "bank", Topic: "accounts", Subject: "b", Until: 7})
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.refills; len(r) != 2 || !r[0].Gone || r[0].Sent != 1 || !r[1].Gone || r[1].Sent != 0 {
		t.Errorf("refills %+v", r)
	}
}

// stopped is a clock that stands still, so that no rate allows anything anew.
type stopped struct {
	clock.System
	at time.Time
}

func (s stopped) Now() time.Time { return s.at }

// A flood of questions is settled, not answered.
func TestRefillFlood(t *testing.T) {
	t.Parallel()
	a := setupAsked(t, func(c *outbox.Config) { c.Clock = stopped{at: time.Now()} })
	if err := a.credit(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		a.ask(rocketflow.Gap{Source: "bank", Topic: "accounts", Subject: "a", After: int64(300 - i), Until: rocketflow.MaxSequence})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	refused := 0
	for _, r := range a.refills {
		if r.Err != nil {
			refused++
		}
	}
	if refused != 100 || len(a.refills) != 300 {
		t.Errorf("%d of %d questions refused, want 100 of 300", refused, len(a.refills))
	}
}
