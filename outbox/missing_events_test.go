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

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

// requestBroker hands the handler of requests to the test.
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
	request   func(v any)
	requestAs func(requester string, v any)
	mu        sync.Mutex
	resent    []outbox.ResentInfo
}

// setupRequests starts an outbox and sends it requests with bodies of any shape.
func setupRequests(t *testing.T, edit func(*outbox.Config)) *requestBundle {
	a := &requestBundle{}
	subscribed := make(chan broker.Handler, 1)
	a.bundle = setup(t, func(c *outbox.Config) {
		c.Broker = &requestBroker{c.Broker.(*logicBroker), subscribed}
		c.Listener = &outbox.Listener{Resent: func(i outbox.ResentInfo) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.resent = append(a.resent, i)
		}}
		if edit != nil {
			edit(c)
		}
	})
	handler := <-subscribed
	a.request = func(v any) {
		t.Helper()
		a.requestAs("requester", v)
	}
	a.requestAs = func(requester string, v any) {
		t.Helper()
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		request := rocketflow.Event{
			ID: uuid.Must(uuid.NewV7()), Type: rocketflow.MissingEvents{}.EventMeta().Type, Source: requester, Topic: rocketflow.MissingEventsTopic,
			Time: time.Now(), ContentType: rocketflow.ContentTypeJSON, Body: body,
		}
		if err := handler(t.Context(), broker.Delivery{Message: wire.MessageOf(request)}); err != nil {
			t.Errorf("a request is not acknowledged: %v", err)
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
	a.request(gap)
	again := a.sentAgain(6)
	if len(again) != 2 || again[0].ID != first[1].ID || again[1].ID != first[2].ID {
		t.Fatalf("sent again %v", again)
	}
	if e, f := again[0], first[1]; e.Previous != f.Previous || e.Database != f.Database || !slices.Equal(e.Body, f.Body) || !e.Time.Equal(f.Time) {
		t.Errorf("%+v came back as %+v", f, e)
	}
	a.request(gap) // of another consumer, at the same time
	if n := len(a.sentAgain(8)); n != 0 {
		t.Errorf("%d events sent for a request whose events were just sent", n)
	}
	gap.After, gap.Until = 0, first[5].Sequence
	a.request(gap)
	if n := len(a.sentAgain(8)); n != 3 {
		t.Errorf("%d events sent for one request, at most 3 are allowed", n)
	}
}

// What is no request, or one for another source or topic, is acknowledged and sends nothing.
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
		a.request(bad)
	}
	a.request("what?")
	a.request([]int{1})
	a.request(map[string]any{"until": "soon"})
	if n := len(a.sentAgain(2)); n != 0 {
		t.Fatalf("%d events sent", n)
	}
	a.request(good)
	if again := a.sentAgain(2); len(again) != 1 || again[0].Source != "bank" {
		t.Errorf("sent again %v", again)
	}
}

// The listener reports that missing events are no longer kept.
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
	a.request(gap)
	gap.Until = events[1].Sequence
	a.request(rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "b", Until: 7})
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.resent; len(r) != 2 || !r[0].Gone || r[0].Sent != 1 || !r[1].Gone || r[1].Sent != 0 {
		t.Errorf("resent %+v", r)
	}
}

// stopped is a clock that stands still, so that no rate allows anything anew.
type stopped struct {
	clock.System
	at time.Time
}

func (s stopped) Now() time.Time { return s.at }

// A flood of requests of one requester is refused with few log lines, and takes nothing from another requester.
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
			a.requestAs("noisy", gap(subject, flood-int64(i)))
		} else {
			a.requestAs("noisy", gap(fmt.Sprintf("nothing %d", i), 1))
		}
	}
	sent := len(a.broker.events())
	if sent > 2+4 {
		t.Errorf("%d events sent again for the requests of one requester for one stream", sent-2)
	}
	for _, requester := range []string{"quiet", "calm", "still"} { // one may share its limiter with the noisy one, by chance
		a.requestAs(requester, gap("b", 0))
	}
	if n := len(a.sentAgain(sent)); n != 1 {
		t.Errorf("%d events sent to other askers, want 1", n)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	refused, looked := 0, 0
	for _, r := range a.resent {
		switch {
		case r.Refused && r.Err != nil && r.Requester == "noisy":
			refused++
		case !r.Refused:
			looked++
		}
	}
	if looked > 201 || refused+looked < flood+1 {
		t.Errorf("%d requests refused and %d accepted", refused, looked)
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 {
		t.Errorf("%d log lines:\n%.2000s", n, log.String())
	}
}

// What is sent for one request is bounded, and so is what one requester getsn requester.
func TestResentBytesAreLimited(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.Clock, c.ResendBytes = stopped{at: time.Now()}, 250_000 })
	const events, size = 30, 100_000
	for i := range events {
		e := rocketflow.Event{Topic: "accounts", Type: "big", Subject: fmt.Sprint("s", i%3), ContentType: "application/octet-stream", Body: make([]byte, size)}
		publish(t, a.outbox, e)
	}
	poll.Until(t, "all events", func() bool { return len(a.broker.events()) == events })
	request := func(requester, subject string, after int64) []rocketflow.Event {
		before := len(a.broker.events())
		a.requestAs(requester, rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: subject, After: after, Until: rocketflow.MaxSequence})
		return a.sentAgain(before)
	}
	first := request("one", "s0", 0)
	if len(first) != 3 { // the third reaches the limit
		t.Fatalf("%d events of %d bytes sent for one request", len(first), size)
	}
	if rest := request("two", "s0", first[2].Sequence-1); len(rest) != 3 || rest[0].Sequence != first[2].Sequence {
		t.Errorf("the rest: %d events", len(rest))
	}
	total := len(first)
	for _, subject := range []string{"s1", "s2"} {
		for range 3 {
			total += len(request("one", subject, 0))
		}
	}
	for i := range 20 { // gaps that no earlier one covers
		total += len(request("one", "s0", int64(20-i)))
	}
	if most := 4*250_000/size + 3; total > most {
		t.Errorf("%d events sent to a requester that requested more and more, want at most %d", total, most)
	}
	if n := len(request("three", "s1", 0)); n == 0 {
		t.Error("another requester got nothing")
	}
}

// An event that is larger than all limits is sent all the same.
func TestLargeMissingEventIsSentAgain(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, func(c *outbox.Config) { c.ResendBytes = 1000 })
	for range 2 {
		publish(t, a.outbox, rocketflow.Event{Topic: "accounts", Type: "big", Subject: "s", ContentType: "application/octet-stream", Body: make([]byte, 900_000)})
	}
	a.request(rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "s", Until: rocketflow.MaxSequence})
	if n := len(a.sentAgain(2)); n != 1 {
		t.Errorf("%d events sent, want 1", n)
	}
}

// A message that is too large for a request is not read.
func TestLargeRequestIsNotRead(t *testing.T) {
	t.Parallel()
	a := setupRequests(t, nil)
	if err := a.credit(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	a.request(map[string]any{"source": "bank", "topic": "accounts", "subject": "a", "after": 0, "until": 9, "more": strings.Repeat("x", 1<<20)})
	if n := len(a.sentAgain(1)); n != 0 {
		t.Errorf("%d events sent", n)
	}
}
