package outbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

// requestBroker lets a test ask.
type requestBroker struct {
	*logicBroker
	handler chan broker.Handler
}

func (b *requestBroker) Subscribe(_ context.Context, _ broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	b.handler <- h
	return idleConsumer{}, nil
}

type idleConsumer struct{}

func (idleConsumer) Stop(context.Context) error { return nil }
func (idleConsumer) Err() error                 { return nil }

type requestBundle struct {
	*bundle
	ask     func(v any)
	askAs   func(asker string, v any)
	mu      sync.Mutex
	refills []outbox.ResentInfo
}

// setupRequests starts an outbox and gives it questions, bodies of any shape.
func setupRequests(t *testing.T, edit func(*outbox.Config)) *requestBundle {
	a := &requestBundle{}
	heard := make(chan broker.Handler, 1)
	a.bundle = setup(t, func(c *outbox.Config) {
		c.Broker = &requestBroker{c.Broker.(*logicBroker), heard}
		c.Listener = &outbox.Listener{Resent: func(i outbox.ResentInfo) {
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
		a.askAs("asker", v)
	}
	a.askAs = func(asker string, v any) {
		t.Helper()
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		question := rocketflow.Event{
			ID: uuid.Must(uuid.NewV7()), Type: rocketflow.MissingEvents{}.EventMeta().Type, Source: asker, Topic: rocketflow.MissingEventsTopic,
			Time: time.Now(), ContentType: rocketflow.ContentTypeJSON, Body: body,
		}
		if err := handler(t.Context(), broker.Delivery{Message: wire.MessageOf(question)}); err != nil {
			t.Errorf("a question is not settled: %v", err)
		}
	}
	return a
}

// sentAgain returns what went out since n events had.
func (a *requestBundle) sentAgain(n int) []rocketflow.Event { return a.broker.events()[n:] }

func TestMissingEventsAreSentAgain(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.ResendLimit = 3 })
	for i := range 6 {
		if err := a.credit(t.Context(), "a", int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	first := a.broker.events()
	gap := rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "a", After: first[0].Sequence, Until: first[3].Sequence}
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
func TestForeignRequestsAreIgnored(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.Topics = []string{"accounts"} })
	for range 2 {
		if err := a.credit(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	// Another service in the same tables.
	if _, err := a.pool.Exec(t.Context(), "UPDATE outbox SET source = 'other' WHERE previous > 0"); err != nil {
		t.Fatal(err)
	}
	good := rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "a", Until: rocketflow.MaxSequence}
	for _, edit := range []func(*rocketflow.MissingEvents){
		func(g *rocketflow.MissingEvents) { g.Source = "other" },
		func(g *rocketflow.MissingEvents) { g.Source = "" },
		func(g *rocketflow.MissingEvents) { g.Subject = "" },
		func(g *rocketflow.MissingEvents) { g.Subject = "a\x00" },
		func(g *rocketflow.MissingEvents) { g.Topic = "secrets" },
		func(g *rocketflow.MissingEvents) { g.After = -1 },
		func(g *rocketflow.MissingEvents) { g.After = rocketflow.MaxSequence },
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
func TestMissingEventsThatAreGoneAreReported(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, nil)
	for range 4 {
		if err := a.credit(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	events := a.broker.events()
	if _, err := a.pool.Exec(t.Context(), "DELETE FROM outbox WHERE sequence <= $1", events[1].Sequence); err != nil {
		t.Fatal(err)
	}
	gap := rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "a", After: events[0].Sequence, Until: events[3].Sequence}
	a.ask(gap)
	gap.Until = events[1].Sequence
	a.ask(rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "b", Until: 7})
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

// A flood of questions of one asker is settled in few lines, and takes nothing from another asker.
func TestFloodOfRequestsIsLimitedByRequester(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := setupRequests(t, func(c *outbox.Config) {
		c.Clock, c.Logger = stopped{at: time.Now()}, slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, account := range []string{"a", "b"} {
		if err := a.credit(t.Context(), account, 1); err != nil {
			t.Fatal(err)
		}
	}
	gap := func(subject string, after int64) rocketflow.MissingEvents {
		return rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: subject, After: after, Until: rocketflow.MaxSequence}
	}
	const flood = 20_000
	for i := range flood { // of many streams, and of one by ever larger gaps
		if subject := "a"; i%2 == 0 {
			a.askAs("noisy", gap(subject, flood-int64(i)))
		} else {
			a.askAs("noisy", gap(fmt.Sprintf("nothing %d", i), 1))
		}
	}
	sent := len(a.broker.events())
	if sent > 2+4 {
		t.Errorf("%d events sent again for the questions of one asker for one stream", sent-2)
	}
	for _, asker := range []string{"quiet", "calm", "still"} { // one may share its place with the noisy one, by chance
		a.askAs(asker, gap("b", 0))
	}
	if n := len(a.sentAgain(sent)); n != 1 {
		t.Errorf("%d events sent to other askers, want 1", n)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	refused, looked := 0, 0
	for _, r := range a.refills {
		switch {
		case r.Refused && r.Err != nil && r.Requester == "noisy":
			refused++
		case !r.Refused:
			looked++
		}
	}
	if looked > 201 || refused+looked < flood+1 {
		t.Errorf("%d questions refused and %d answered", refused, looked)
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 {
		t.Errorf("%d log lines:\n%.2000s", n, log.String())
	}
}

// A question is small, its answer is bounded: for one question, and for an asker.
func TestResentBytesAreLimited(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.Clock, c.ResendBytes = stopped{at: time.Now()}, 250_000 })
	const events, size = 30, 100_000
	for i := range events {
		e := rocketflow.Event{Topic: "accounts", Type: "big", Subject: fmt.Sprint("s", i%3), ContentType: "application/octet-stream", Body: make([]byte, size)}
		publish(t, a.outbox, e)
	}
	eventually(t, "all events", func() bool { return len(a.broker.events()) == events })
	ask := func(asker, subject string, after int64) []rocketflow.Event {
		before := len(a.broker.events())
		a.askAs(asker, rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: subject, After: after, Until: rocketflow.MaxSequence})
		return a.sentAgain(before)
	}
	first := ask("one", "s0", 0)
	if len(first) != 3 { // the third reaches the limit
		t.Fatalf("%d events of %d bytes sent for one question", len(first), size)
	}
	if rest := ask("two", "s0", first[2].Sequence-1); len(rest) != 3 || rest[0].Sequence != first[2].Sequence {
		t.Errorf("the rest: %d events", len(rest))
	}
	total := len(first)
	for _, subject := range []string{"s1", "s2"} {
		for range 3 {
			total += len(ask("one", subject, 0))
		}
	}
	for i := range 20 { // gaps that no earlier one covers
		total += len(ask("one", "s0", int64(20-i)))
	}
	if most := 4*250_000/size + 3; total > most {
		t.Errorf("%d events sent to an asker that asked for more and more, want at most %d", total, most)
	}
	if n := len(ask("three", "s1", 0)); n == 0 {
		t.Error("another asker got nothing")
	}
}

// An event that is larger than all limits is sent all the same.
func TestLargeMissingEventIsSentAgain(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.ResendBytes = 1000 })
	for range 2 {
		publish(t, a.outbox, rocketflow.Event{Topic: "accounts", Type: "big", Subject: "s", ContentType: "application/octet-stream", Body: make([]byte, 900_000)})
	}
	a.ask(rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "s", Until: rocketflow.MaxSequence})
	if n := len(a.sentAgain(2)); n != 1 {
		t.Errorf("%d events sent, want 1", n)
	}
}

// What is no question isn't even read, however large.
func TestLargeRequestIsNotRead(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, nil)
	if err := a.credit(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	a.ask(map[string]any{"source": "bank", "topic": "accounts", "subject": "a", "after": 0, "until": 9, "more": strings.Repeat("x", 1<<20)})
	if n := len(a.sentAgain(1)); n != 0 {
		t.Errorf("%d events sent", n)
	}
}
