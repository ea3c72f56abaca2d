package handlers

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
)

// deadLetters starts a router whose handler fails while broken says so, and makes n dead letters.
func (b *bundle) deadLetters(n int, handle rocketflow.HandlerFunc) (events []rocketflow.Event, broken *atomic.Bool, r *Router) {
	b.t.Helper()
	broken = new(atomic.Bool)
	broken.Store(true)
	r = b.router(b.config())
	r.Handle("billing", topic, "order.seen", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if broken.Load() {
			return Dead(errors.New("the bank is away"))
		}
		return handle(ctx, tx, e)
	})
	b.start(r)
	for i := range n {
		events = append(events, loose("order.seen", subjectN(i)))
	}
	b.broker.publish(events...)
	poll.Until(b.t, "they are dead letters", func() bool { return b.parkedCount(DeadLetter) == n })
	return events, broken, r
}

// One dead letter is tried first. If it fails again, the others stay; if it is handled, they follow, at a rate.
func TestRetryTriesOneFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, broken, _ := b.deadLetters(20, effect)
	billing := operate.ParkedFilter{Consumer: "billing"}
	n, err := b.operator.RetryCarefully(t.Context(), billing, operate.RetryOptions{TryFirst: true})
	var first *operate.FirstFailedError
	if !errors.As(err, &first) || n != 1 || first.State != operate.StateDead || first.Reason != "the bank is away" || first.Consumer != "billing" {
		t.Errorf("retried %d, %v", n, err)
	}
	if n := b.parkedCount(DeadLetter); n != 20 {
		t.Errorf("%d dead letters are left", n)
	}
	broken.Store(false)
	began := time.Now()
	n, err = b.operator.RetryCarefully(t.Context(), billing, operate.RetryOptions{TryFirst: true, Rate: 50})
	if n != 20 || err != nil {
		t.Errorf("retried %d, %v", n, err)
	}
	if took := time.Since(began); took < 200*time.Millisecond { // 19 events, 5 of them at once
		t.Errorf("19 events at 50 a second took %v", took)
	}
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() == 20 })
	audit, err := b.operator.Audit(t.Context(), operate.AuditFilter{Action: operate.ActionRetryDeadLetters})
	if err != nil || len(audit) != 1+1+4 || string(audit[0].Filter) != `{"consumer":"billing","rate":50,"try_first":true}` || audit[0].Operation != audit[4].Operation {
		t.Errorf("audit: %+v, %v", audit, err)
	}
	var field *rocketflow.FieldError
	for _, bad := range []operate.RetryOptions{{Rate: -1}, {Rate: math.NaN()}, {Rate: math.Inf(1)}, {FirstTimeout: -1}} {
		if _, err := b.operator.RetryCarefully(t.Context(), billing, bad); !errors.As(err, &field) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := b.operator.RetryCarefully(t.Context(), operate.ParkedFilter{}, operate.RetryOptions{}); !errors.As(err, &field) {
		t.Errorf("without a filter: %v", err)
	}
}

// Nobody handles the first: the others stay.
func TestRetryGivesUpWithoutAProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.seen", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return Dead(errors.New("no")) })
	b.start(r)
	b.broker.publish(loose("order.seen", "1"), loose("order.seen", "2"))
	poll.Until(t, "they are dead letters", func() bool { return b.parkedCount(DeadLetter) == 2 })
	b.stop(r)
	n, err := b.operator.RetryCarefully(t.Context(), operate.ParkedFilter{All: true}, operate.RetryOptions{TryFirst: true, FirstTimeout: 300 * time.Millisecond})
	var first *operate.FirstFailedError
	if !errors.As(err, &first) || n != 1 || first.State != operate.StateRetry || b.parkedCount(DeadLetter) != 1 {
		t.Errorf("retried %d, %v", n, err)
	}
}

// The first is not waited for while a pause holds it: the others stay.
func TestRetryGivesUpWhilePaused(t *testing.T) {
	t.Parallel()
	for _, target := range []operate.PauseTarget{
		wholeBilling,
		{Kind: operate.PauseHandler, Consumer: "billing", Topic: topic, Type: "order.seen"},
		{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: subjectN(0)},
	} {
		t.Run(string(target.Kind), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events, broken, _ := b.deadLetters(2, effect)
			broken.Store(false)
			if _, err := b.pool.Exec(t.Context(), "UPDATE parked SET parked_at = parked_at - interval '1 minute' WHERE event_id = $1", events[0].ID); err != nil {
				t.Fatal(err) // it is the first
			}
			b.pause(target)
			n, err := b.operator.RetryCarefully(t.Context(), operate.ParkedFilter{All: true}, operate.RetryOptions{TryFirst: true})
			var first *operate.FirstFailedError
			if !errors.As(err, &first) || n != 1 || first.State != operate.StatePaused || first.EventID != events[0].ID.String() || b.parkedCount(DeadLetter) != 1 {
				t.Errorf("retried %d, %v", n, err)
			}
			b.resume(target)
			poll.Until(t, "the first is handled", func() bool { return b.effectCount() == 1 && b.parkedCount(DeadLetter) == 1 })
		})
	}
}

// An edited dead letter is handled with its new content; what was delivered is kept, and a late copy of it is a duplicate.
func TestEditedDeadLetterIsHandledOnce(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]bool{"ordered": true, "without order": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var mu sync.Mutex
			var got []rocketflow.Event
			r := b.router(b.config())
			p := newProbe()
			r.cfg.Listener = p.listener().withDefaults()
			r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
				if string(e.Body) == `{"cents":-1}` {
					return Dead(errors.New("no amount"))
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, e)
				return effect(ctx, tx, e)
			})
			b.start(r)
			e := loose("order.changed", "4711")
			next := e
			if ordered {
				list := newChain("4711").next(2)
				e, next = list[0], list[1]
			}
			e.Body, next.Body = []byte(`{"cents":-1}`), []byte(`{"cents":2}`)
			e.Headers = map[string]string{"tenant": "acme"}
			b.broker.publish(e)
			if ordered {
				b.broker.publish(next)
			}
			poll.Until(t, "it is a dead letter", func() bool { return b.parkedCount(DeadLetter) == 1 && b.broker.idle() })
			ref := operate.DeadLetterRef{Consumer: "billing", EventID: e.ID}
			ctx := operate.WithActor(t.Context(), operate.Actor{Name: "maria", Reason: "ticket 7"})
			if err := b.operator.EditDeadLetter(ctx, ref, operate.Edit{Body: []byte(`{"cents":100}`)}); err != nil {
				t.Fatal(err)
			}
			want := 1
			if ordered {
				want = 2
			}
			poll.Until(t, "it is handled", func() bool { return b.effectCount() == want && b.count("SELECT count(*) FROM parked") == 0 })
			mu.Lock()
			if h := got[0]; string(h.Body) != `{"cents":100}` || h.ID != e.ID || h.Headers["tenant"] != "acme" || h.Sequence != e.Sequence {
				t.Errorf("handled %+v with body %s", h, h.Body)
			}
			mu.Unlock()
			originals, err := b.operator.Originals(ctx, "billing", e.ID)
			if err != nil || len(originals) != 1 || string(originals[0].Body) != `{"cents":-1}` || originals[0].Headers["tenant"] != "acme" || originals[0].EditedAt.IsZero() {
				t.Errorf("originals: %+v, %v", originals, err)
			}
			b.broker.publish(e) // a late copy
			poll.Until(t, "the copy is settled", func() bool { return b.broker.idle() && p.get("duplicate") == 1 })
			if n := b.parkedCount(DeadLetter); n != 0 || b.effectCount() != want {
				t.Errorf("%d dead letters, %d effects", n, b.effectCount())
			}
			audit, err := b.operator.Audit(ctx, operate.AuditFilter{Action: operate.ActionEditDeadLetter})
			if err != nil || len(audit) != 1 || audit[0].Actor != "maria" || len(audit[0].IDs) != 1 {
				t.Fatalf("audit: %+v, %v", audit, err)
			}
			for _, part := range []string{"cents", "acme"} {
				if text := string(audit[0].Before) + string(audit[0].After); strings.Contains(text, part) {
					t.Errorf("the audit has content: %s", text)
				}
			}
			if err := b.operator.EditDeadLetter(ctx, ref, operate.Edit{Body: []byte("x")}); !errors.Is(err, operate.ErrUnknownDeadLetter) {
				t.Errorf("edited what isn't there: %v", err)
			}
		})
	}
}

// An edit that can't be stored changes nothing.
func TestEditRefusesBadContent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events, _, _ := b.deadLetters(1, effect)
	ref := operate.DeadLetterRef{Consumer: "billing", EventID: events[0].ID}
	var field *rocketflow.FieldError
	for what, edit := range map[string]operate.Edit{
		"nothing": {}, "too large": {Body: make([]byte, 5<<20)}, "reserved header": {Headers: map[string]string{"rf_sequence": "1"}},
		"reserved attribute": {Headers: map[string]string{"CE_id": "1"}},
	} {
		if err := b.operator.EditDeadLetter(t.Context(), ref, edit); !errors.As(err, &field) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []operate.DeadLetterRef{{EventID: ref.EventID}, {Consumer: "billing"}} {
		if err := b.operator.EditDeadLetter(t.Context(), bad, operate.Edit{Body: []byte("x")}); !errors.As(err, &field) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if n := b.count("SELECT count(*) FROM edited_event") + b.count("SELECT count(*) FROM audit"); n != 0 || b.parkedCount(DeadLetter) != 1 {
		t.Errorf("%d rows of refused edits", n)
	}
}

// What was delivered of an edited event is kept while the event is parked, and then as long as the inbox's rows.
func TestOriginalsExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	events, _, _ := b.deadLetters(2, effect)
	r := b.router(b.config())
	for _, e := range events {
		if err := b.operator.EditDeadLetter(ctx, operate.DeadLetterRef{Consumer: "billing", EventID: e.ID}, operate.Edit{ContentType: "text/plain"}); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "they are dead letters again", func() bool { return b.parkedCount(DeadLetter) == 2 })
	if _, err := b.pool.Exec(ctx, "DELETE FROM parked WHERE event_id = $1", events[0].ID); err != nil {
		t.Fatal(err)
	}
	kept := func() int {
		if err := r.retain(ctx); err != nil {
			t.Fatal(err)
		}
		return b.count("SELECT count(*) FROM edited_event")
	}
	if n := kept(); n != 2 {
		t.Errorf("%d are kept, want 2 that are young", n)
	}
	if _, err := b.pool.Exec(ctx, "UPDATE edited_event SET edited_at = edited_at - interval '30 days'"); err != nil {
		t.Fatal(err)
	}
	if n := kept(); n != 1 {
		t.Errorf("%d are kept, want the one of the parked event", n)
	}
}
