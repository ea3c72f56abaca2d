package outbox_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// fullEvents are events that use what an event can have.
func fullEvents() []rocketflow.Event {
	full := rocketflow.Event{
		Topic: "accounts", Subject: "é", ContentType: "text/plain; charset=utf-8", DataSchema: "https://example.com/note",
		Extensions: map[string]string{"traceparent": "00-1", "comexample": "%41 €"}, Headers: map[string]string{"tenant": "acme"}, Body: []byte("a\x00b"),
	}
	empty, zero, free := full, full, full
	full.Type, empty.Type, zero.Type, free.Type = "full", "empty", "zero", "free"
	empty.Body = nil
	zero.Body = []byte{0}
	free.Subject, free.Extensions, free.Headers, free.DataSchema = "", nil, nil, ""
	return []rocketflow.Event{full, empty, zero, free}
}

// Whatever way an event goes, all of it arrives.
func TestAllOfAnEventArrives(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]outbox.Path{"half messages": outbox.HalfMessages, "relay": outbox.Relay} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *outbox.Config) { c.Path = path })
			for _, e := range fullEvents() { // alone, and all in one statement
				publish(t, b.outbox, e)
			}
			publish(t, b.outbox, fullEvents()...)
			poll.Until(t, "all events", func() bool { return len(b.broker.events()) == 8 })
			checkFull(t, b.broker.events()[:4])
			checkFull(t, b.broker.events()[4:])
			if _, err := testoperator.Of(t, operate.Config{Pool: b.pool, Schema: b.schema, Broker: b.broker}).Resend(t.Context(), operate.ResendFilter{All: true}); err != nil {
				t.Fatal(err)
			}
			checkFull(t, b.broker.events()[8:12])
		})
	}
	t.Run("sweep", func(t *testing.T) {
		t.Parallel()
		b := setup(t, nil)
		b.broker.away(true)
		publish(t, b.outbox, fullEvents()...)
		b.broker.away(false)
		poll.Until(t, "all events", func() bool { return len(b.broker.events()) >= 4 })
		checkFull(t, b.broker.events())
	})
	t.Run("missing events", func(t *testing.T) {
		t.Parallel()
		a := setupRequests(t, nil)
		publish(t, a.outbox, fullEvents()...)
		poll.Until(t, "all events", func() bool { return len(a.broker.events()) == 4 })
		a.request(rocketflow.MissingEvents{Source: "bank", Topic: "accounts", Subject: "é", Until: rocketflow.MaxSequence})
		again := a.sentAgain(4)
		checkFull(t, append(again, fullEvents()[3]))
	})
}

func publish(t *testing.T, box *outbox.Outbox, events ...rocketflow.Event) {
	t.Helper()
	payloads := make([]rocketflow.Payload, len(events))
	for i, e := range events {
		payloads[i] = e
	}
	err := box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, payloads...) })
	if err != nil {
		t.Fatal(err)
	}
}

func checkFull(t *testing.T, got []rocketflow.Event) {
	t.Helper()
	events := map[string]rocketflow.Event{} // in no order between streams
	for _, e := range got {
		events[e.Type] = e
	}
	for _, want := range fullEvents() {
		e := events[want.Type]
		if e.Subject != want.Subject || e.ContentType != want.ContentType || e.DataSchema != want.DataSchema ||
			!maps.Equal(e.Extensions, want.Extensions) || !maps.Equal(e.Headers, want.Headers) || string(e.Body) != string(want.Body) {
			t.Errorf("%+v arrived as %+v", want, e)
		}
	}
}

// A service's name is CE_source of all it publishes.
func TestSourceMayBeAnyURIReference(t *testing.T) {
	t.Parallel()
	pool := setup(t, nil).pool
	for _, source := range []string{"", "my service", "a\u202eb", "x\x1b[2J"} {
		_, err := outbox.New(outbox.Config{Pool: pool, Broker: newLogicBroker(), Source: source})
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != "outbox.Config.Source" || !isPrintable(err.Error()) {
			t.Errorf("%q: got %v", source, err)
		}
	}
}

// isPrintable reports whether text is fit for a terminal.
func isPrintable(s string) bool {
	return len(s) < 5000 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
	})
}
