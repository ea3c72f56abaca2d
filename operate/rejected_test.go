package operate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
)

// seen is an event of a topic that may be missing.
func seen(subject string) rocketflow.Event {
	return rocketflow.Event{Topic: "missing", Type: "seen", Subject: subject, Body: []byte("{}")}
}

// credited is an event of the account a.
func credited(cents int) rocketflow.Event {
	return rocketflow.Event{Topic: "accounts", Type: "account.credited", Subject: "a", Body: fmt.Appendf(nil, `{"cents":%d}`, cents)}
}

// A rejected event can be discarded without breaking the chain of its stream.
func TestDiscardKeepsTheChainOfTheStream(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, nil)
	if err := s.publish(ctx, credited(1)); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the first is sent", func() bool { return len(s.broker.events()) == 1 })
	s.broker.setRefused("a")
	if err := s.publish(ctx, credited(2)); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the rejection is recorded", func() bool { return s.count(t, "outbox_rejected") == 1 })
	s.broker.setRefused("")
	list, err := s.operator.RejectedEvents(ctx, operate.RejectedFilter{Topic: "accounts"})
	if err != nil || len(list) != 1 || list[0].Event.Subject != "a" || list[0].Reason == "" || list[0].Size == 0 || list[0].NextAt.IsZero() {
		t.Fatalf("listed %+v (%v)", list, err)
	}
	if n, err := s.operator.DiscardRejected(ctx, operate.RejectedFilter{EventID: list[0].Event.ID}, "nobody needs it"); err != nil || n != 1 {
		t.Fatalf("discarded %d (%v)", n, err)
	}
	if err := s.publish(ctx, credited(3)); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all three are sent", func() bool { return len(s.broker.events()) >= 3 })
	poll.Until(t, "all are acknowledged", func() bool { return s.count(t, "outbox_ack") == 3 })
	types := map[int64]string{}
	for _, e := range s.broker.events() {
		if e.ID == list[0].Event.ID && e.Type != operate.DiscardedType {
			continue // sent while it was discarded
		}
		types[e.Previous] = e.Type
		if e.Type == operate.DiscardedType {
			var body struct{ Type, Reason string }
			if err := json.Unmarshal(e.Body, &body); err != nil || body.Type != "account.credited" || body.Reason != "nobody needs it" || e.Sequence != list[0].Event.Sequence {
				t.Errorf("it is replaced by %+v with %s (%v)", e, e.Body, err)
			}
		}
	}
	if len(types) != 3 {
		t.Errorf("the chain is %v, want three links", types)
	}
	var body []byte
	if err := s.pool.QueryRow(ctx, "SELECT body FROM outbox_discarded WHERE id = $1", list[0].Event.ID).Scan(&body); err != nil || !bytes.Contains(body, []byte(`"cents":2`)) {
		t.Errorf("the discarded event is kept as %s (%v)", body, err)
	}
}

// Once the events of a missing topic are discarded, they are no longer owed and the topic can be published to again.
func TestDiscardEndsTheBackPressureOfATopic(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, func(c *outbox.Config) { c.MaxRejected = 5 })
	s.broker.setMissing("missing")
	for i := range 5 {
		if err := s.publish(ctx, seen(fmt.Sprint(i%2))); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "the outbox refuses the topic", func() bool { return errors.Is(s.publish(ctx, seen("0")), rocketflow.ErrBackpressure) })
	topics, err := s.operator.RejectedTopics(ctx)
	if err != nil || len(topics) != 1 || topics[0].Topic != "missing" || topics[0].Events < 5 || topics[0].Reason == "" || topics[0].NextAt.IsZero() {
		t.Errorf("rejected topics: %+v (%v)", topics, err)
	}
	if n, err := s.operator.DiscardRejected(ctx, operate.RejectedFilter{Topic: "missing"}, ""); err != nil || n < 5 {
		t.Fatalf("discarded %d (%v)", n, err)
	}
	poll.Until(t, "nothing is owed", func() bool {
		if _, err := s.operator.DiscardRejected(ctx, operate.RejectedFilter{Topic: "missing"}, ""); err != nil { // rejected since
			t.Fatal(err)
		}
		n, _, err := s.outbox.Backlog(ctx)
		return err == nil && n == 0
	})
	poll.Until(t, "the topic can be published to again", func() bool { return s.publish(ctx, seen("0")) == nil })
}

// Redirected events keep their order, follow what is in the new topic, and break neither of the two chains.
func TestRedirectKeepsOrderAndChains(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, nil)
	s.broker.setMissing("missing")
	event := func(topic string, n int) rocketflow.Event {
		return rocketflow.Event{Topic: topic, Type: "seen", Subject: "a", Body: fmt.Appendf(nil, "%d", n)}
	}
	for i, topic := range []string{"right", "missing", "right", "missing", "missing"} {
		if err := s.publish(ctx, event(topic, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.publish(ctx, rocketflow.Event{Topic: "missing", Type: "seen", Body: []byte("9")}); err != nil { // not ordered
		t.Fatal(err)
	}
	poll.Until(t, "the rejections are recorded", func() bool { return s.count(t, "outbox_rejected") == 4 })
	list, err := s.operator.RejectedEvents(ctx, operate.RejectedFilter{})
	if err != nil || len(list) != 4 {
		t.Fatalf("%d listed (%v)", len(list), err)
	}
	if n, err := s.operator.RedirectRejected(ctx, operate.RejectedFilter{Topic: "missing"}, "right"); err != nil || n != 4 {
		t.Fatalf("redirected %d (%v)", n, err)
	}
	poll.Until(t, "all are sent", func() bool { return len(s.broker.ofTopic("right")) == 6 })
	var bodies string
	var ordered []rocketflow.Event
	ids := map[string]bool{}
	for _, e := range s.broker.ofTopic("right") {
		ids[e.ID.String()] = true
		if e.Ordered() {
			bodies += string(e.Body)
			ordered = append(ordered, e)
		}
	}
	if bodies != "02134" {
		t.Errorf("the events came as %s, want 02134", bodies)
	}
	checkChain(t, ordered)
	for _, r := range list {
		if !ids[r.Event.ID.String()] {
			t.Errorf("event %s has another id", r.Event.ID)
		}
	}
	// The topic is created after all: the next event in it follows the replacements.
	s.broker.setMissing("")
	if err := s.publish(ctx, event("missing", 5)); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the next is sent", func() bool { return len(s.broker.ofTopic("missing")) == 1 })
	if n, err := s.operator.Resend(ctx, operate.ResendFilter{Topic: "missing", Type: operate.DiscardedType}); err != nil || n != 3 {
		t.Fatalf("%d replacements (%v), want 3", n, err)
	}
	all := s.broker.ofTopic("missing")
	checkChain(t, append(all[1:], all[0]))
}

// RetryRejected makes events due before the time of their next attempt.
func TestRetryDoesNotWaitForTheNextAttempt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, nil)
	s.broker.setMissing("missing")
	for i := range 3 {
		if err := s.publish(ctx, seen(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "the rejections are recorded", func() bool { return s.count(t, "outbox_rejected") == 3 })
	if _, err := s.pool.Exec(ctx, "UPDATE outbox_rejected_topic SET next_at = clock_timestamp() + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	s.broker.setMissing("")
	if n, err := s.operator.RetryRejected(ctx, operate.RejectedFilter{All: true}); err != nil || n != 3 {
		t.Fatalf("retried %d (%v)", n, err)
	}
	poll.Until(t, "all are sent", func() bool { return len(s.broker.events()) == 3 && s.count(t, "outbox_rejected") == 0 })
}

// Resend sends what the outbox keeps, page by page, up to the limit, and leaves nothing out.
func TestResendLeavesNothingOut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, nil)
	const events = 12
	for i := range events {
		e := rocketflow.Event{Topic: "accounts", Type: "big", Subject: fmt.Sprint(i), ContentType: "application/octet-stream", Body: make([]byte, 300_000)}
		if err := s.publish(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "all are sent", func() bool { return len(s.broker.events()) == events })
	if n, err := s.operator.Resend(ctx, operate.ResendFilter{All: true}); err != nil || n != events {
		t.Errorf("sent %d, %v; want %d", n, err, events)
	}
	ids := map[string]bool{}
	for _, e := range s.broker.events()[events:] {
		ids[e.ID.String()] = true
	}
	if len(ids) != events {
		t.Errorf("%d events sent again, want %d", len(ids), events)
	}
	for want, f := range map[int]operate.ResendFilter{0: {Topic: "other"}, 1: {Subject: "3"}, 5: {All: true, Limit: 5}} {
		if n, err := s.operator.Resend(ctx, f); err != nil || n != want {
			t.Errorf("%+v: sent %d, %v; want %d", f, n, err, want)
		}
	}
	s.broker.setMissing("accounts")
	if n, err := s.operator.Resend(ctx, operate.ResendFilter{All: true}); err == nil || n != 0 {
		t.Errorf("sent %d, %v to a topic that is missing", n, err)
	}
}

// The pages of rejected events have each event once, the oldest first; those of a topic and with an id are found as well.
func TestPagesOfRejectedEvents(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, nil)
	s.broker.setMissing("missing")
	const n = 60
	err := s.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		for i := range n {
			if err := tx.Publish(ctx, seen(fmt.Sprint(i%20))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the rejections are recorded", func() bool { return s.count(t, "outbox_rejected") == n })
	all := func(f operate.RejectedPageFilter) (list []operate.RejectedEvent) {
		t.Helper()
		for {
			page, err := s.operator.RejectedPage(ctx, f)
			if err != nil || page.Partial {
				t.Fatal(page, err)
			}
			list = append(list, page.Events...)
			if f.After = page.Next; f.After == "" {
				return list
			}
		}
	}
	for _, limit := range []int{1, 7, 50, 100} {
		for want, f := range map[int]operate.RejectedPageFilter{n: {Topic: "missing", Type: "seen"}, n / 20: {Subject: "7"}, 0: {Topic: "other"}} {
			f.Limit = limit
			list := all(f)
			known := map[string]bool{}
			for i, r := range list {
				known[r.Event.ID.String()] = true
				if i > 0 && r.Event.ID.String() <= list[i-1].Event.ID.String() {
					t.Errorf("%+v: %s follows %s", f, r.Event.ID, list[i-1].Event.ID)
				}
			}
			if len(list) != want || len(known) != want {
				t.Errorf("%+v: %d events, of which %d differ, want %d", f, len(list), len(known), want)
			}
		}
	}
	list, err := s.operator.RejectedEvents(ctx, operate.RejectedFilter{Limit: 3})
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	one := all(operate.RejectedPageFilter{EventID: list[1].Event.ID})
	if len(one) != 1 || one[0].Event.ID != list[1].Event.ID || one[0].Event.Topic != "missing" || one[0].Size != 2 || one[0].Reason == "" || one[0].RejectedAt.IsZero() {
		t.Errorf("got %+v", one)
	}
	if v, err := s.operator.Overview(ctx); err != nil || v.Rejected != n {
		t.Errorf("the overview has %+v: %v", v, err)
	}
}
