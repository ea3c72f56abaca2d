package outbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

func (b *bundle) refuse(key string) {
	b.broker.mu.Lock()
	defer b.broker.mu.Unlock()
	b.broker.refuse = key
}

func byTopic(events []rocketflow.Event, topic string) (of []rocketflow.Event) {
	for _, e := range events {
		if e.Topic == topic {
			of = append(of, e)
		}
	}
	return of
}

// What was never taken is discarded: the chain of its stream stays whole.
func TestDiscardOwed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	owed := outbox.NewOwed(b.pool, b.schema)
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first", func() bool { return len(b.broker.events()) == 1 })
	b.refuse("a") // it is too large, say
	if err := b.credit(ctx, "a", 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is noted", func() bool { return b.count(t, "outbox_rejected") == 1 })
	b.refuse("")
	list, err := owed.List(ctx, outbox.OwedFilter{Topic: "accounts"})
	if err != nil || len(list) != 1 || list[0].Event.Subject != "a" || list[0].Reason == "" || list[0].Size == 0 || list[0].NextAt.IsZero() {
		t.Fatalf("listed %+v (%v)", list, err)
	}
	if n, err := owed.Discard(ctx, outbox.OwedFilter{EventID: list[0].Event.ID}, "nobody needs it"); err != nil || n != 1 {
		t.Fatalf("discarded %d (%v)", n, err)
	}
	if err := b.credit(ctx, "a", 3); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all three", func() bool { return len(b.broker.events()) >= 3 })
	eventually(t, "acks", func() bool { return b.count(t, "outbox_ack") == 3 })
	types := map[int64]string{}
	for _, e := range b.broker.events() {
		if e.ID == list[0].Event.ID && e.Type != outbox.DiscardedType {
			continue // tried while it was discarded
		}
		types[e.Previous] = e.Type
		if e.Type == outbox.DiscardedType {
			var body struct{ Type, Reason string }
			if err := json.Unmarshal(e.Body, &body); err != nil || body.Type != "account.credited" || body.Reason != "nobody needs it" || e.Sequence != list[0].Event.Sequence {
				t.Errorf("in its place stands %+v with %s (%v)", e, e.Body, err)
			}
		}
	}
	if len(types) != 3 {
		t.Errorf("the chain is %v, want three links", types)
	}
	var body []byte
	if err := b.pool.QueryRow(ctx, "SELECT body FROM outbox_discarded WHERE id = $1", list[0].Event.ID).Scan(&body); err != nil || !bytes.Contains(body, []byte(`"cents":2`)) {
		t.Errorf("what was discarded is kept as %s (%v)", body, err)
	}
}

// Events of a topic that will never be there are discarded: they are no longer owed, and the topic is taken again.
func TestDiscardATopic(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.Path, c.MaxRejected = outbox.Relay, 5 })
	b.broker.reject("missing")
	for i := range 5 {
		if err := b.publishOne(ctx, seen(fmt.Sprint(i%2))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the topic is refused", func() bool { return errors.Is(b.publishOne(ctx, seen("0")), rocketflow.ErrBackpressure) })
	owed := outbox.NewOwed(b.pool, b.schema)
	for _, f := range []outbox.OwedFilter{{}, {All: true, Topic: "missing"}, {Topic: "missing", Limit: -1}} {
		if _, err := owed.Discard(ctx, f, ""); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	if n, err := owed.Discard(ctx, outbox.OwedFilter{Topic: "missing"}, ""); err != nil || n < 5 {
		t.Fatalf("discarded %d (%v)", n, err)
	}
	eventually(t, "nothing is owed", func() bool {
		if _, err := owed.Discard(ctx, outbox.OwedFilter{Topic: "missing"}, ""); err != nil { // what was noted since
			t.Fatal(err)
		}
		n, _, err := b.outbox.Backlog(ctx)
		return err == nil && n == 0
	})
	eventually(t, "the topic is taken again", func() bool { return b.publishOne(ctx, seen("0")) == nil })
}

// Events of a mistyped topic go to the right one, in order and behind what is there, and none of the two chains breaks.
func TestRedirectOwed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	b.broker.reject("missing")
	event := func(topic string, n int) rocketflow.Event {
		return rocketflow.Event{Topic: topic, Type: "seen", Subject: "a", Body: fmt.Appendf(nil, "%d", n)}
	}
	for i, topic := range []string{"right", "missing", "right", "missing", "missing"} {
		if err := b.publishOne(ctx, event(topic, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.publishOne(ctx, rocketflow.Event{Topic: "missing", Type: "seen", Body: []byte("9")}); err != nil { // without order
		t.Fatal(err)
	}
	eventually(t, "they are noted", func() bool { return b.count(t, "outbox_rejected") == 4 })
	owed := outbox.NewOwed(b.pool, b.schema)
	if _, err := owed.Redirect(ctx, outbox.OwedFilter{Topic: "missing"}, "missing"); err == nil {
		t.Error("redirected to the same topic")
	}
	list, err := owed.List(ctx, outbox.OwedFilter{})
	if err != nil || len(list) != 4 {
		t.Fatalf("%d listed (%v)", len(list), err)
	}
	if n, err := owed.Redirect(ctx, outbox.OwedFilter{Topic: "missing"}, "right"); err != nil || n != 4 {
		t.Fatalf("redirected %d (%v)", n, err)
	}
	eventually(t, "all are out", func() bool { return len(byTopic(b.broker.events(), "right")) == 6 })
	var bodies string
	var ordered []rocketflow.Event
	ids := map[string]bool{}
	for _, e := range byTopic(b.broker.events(), "right") {
		ids[e.ID.String()] = true
		if e.Ordered() {
			bodies += string(e.Body)
			ordered = append(ordered, e)
		}
	}
	if bodies != "02134" {
		t.Errorf("the events came as %s, want 02134", bodies)
	}
	chain(t, ordered)
	for _, r := range list {
		if !ids[r.Event.ID.String()] {
			t.Errorf("event %s has another id", r.Event.ID)
		}
	}
	// The topic comes to be after all: what is published there follows what stands in the place of those.
	b.broker.reject("")
	if err := b.publishOne(ctx, event("missing", 5)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next", func() bool { return len(byTopic(b.broker.events(), "missing")) == 1 })
	if n, err := outbox.Resend(ctx, outbox.ResendConfig{Pool: b.pool, Schema: b.schema, Broker: b.broker, Topic: "missing", Type: outbox.DiscardedType}); err != nil || n != 3 {
		t.Fatalf("%d stand in their places (%v), want 3", n, err)
	}
	all := byTopic(b.broker.events(), "missing")
	chain(t, append(all[1:], all[0]))
}

// Retry needn't wait for the time of the next attempt.
func TestRetryOwed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	b.broker.reject("missing")
	for i := range 3 {
		if err := b.publishOne(ctx, seen(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are noted", func() bool { return b.count(t, "outbox_rejected") == 3 })
	if _, err := b.pool.Exec(ctx, "UPDATE outbox_rejected_topic SET next_at = clock_timestamp() + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	b.broker.reject("")
	if n, err := outbox.NewOwed(b.pool, b.schema).Retry(ctx, outbox.OwedFilter{All: true}); err != nil || n != 3 {
		t.Fatalf("retried %d (%v)", n, err)
	}
	eventually(t, "all are out", func() bool { return len(b.broker.events()) == 3 && b.count(t, "outbox_rejected") == 0 })
}
