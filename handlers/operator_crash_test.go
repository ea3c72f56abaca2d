package handlers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// hang is a handler that can be made to wait until its process ends.
type hang struct {
	began chan struct{} // a handler waits
	mu    sync.Mutex
	until chan struct{} // nil: handlers don't wait
}

func newHang() *hang { return &hang{began: make(chan struct{}, 100), until: make(chan struct{})} }

func (h *hang) handle(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	h.mu.Lock()
	until := h.until
	h.mu.Unlock()
	if until != nil {
		h.began <- struct{}{}
		select {
		case <-until:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return effect(ctx, tx, e)
}

// release lets handlers go on.
func (h *hang) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.until)
	h.until = nil
}

// end lets no handler of a process that has ended wait for it.
func (h *hang) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = nil
}

// kill ends a process whose handler runs: its transaction is rolled back.
func (b *bundle) kill(r *Router) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Stop(ctx); !errors.Is(err, context.Canceled) {
		b.t.Errorf("the end of a process whose handler runs: %v", err)
	}
}

// An operator's program and the service die while a careful retry has tried one dead letter and not yet the others. A restart finds
// that one due and the others as they were; a second retry takes the others, and each has its effect once.
func TestCarefulRetryIsRepeatedAfterACrash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := newHang()
	_, broken, first := b.deadLetters(5, h.handle)
	broken.Store(false)
	type result struct {
		n   int
		err error
	}
	ended := make(chan result, 1)
	ctx, die := context.WithCancel(t.Context())
	go func() {
		n, err := b.operator.RetryCarefully(ctx, operate.ParkedFilter{Consumer: "billing"}, operate.RetryOptions{TryFirst: true})
		ended <- result{n, err}
	}()
	<-h.began
	die()
	if r := <-ended; r.n != 1 || !errors.Is(r.err, context.Canceled) {
		t.Errorf("retried %d, %v", r.n, r.err)
	}
	b.kill(first)
	if dead, due := b.parkedCount(DeadLetter), b.parkedCount(Retry); dead != 4 || due != 1 || b.effectCount() != 0 {
		t.Errorf("a restart finds %d dead letters and %d due events, %d effects", dead, due, b.effectCount())
	}
	audit, err := b.operator.Audit(t.Context(), operate.AuditFilter{Action: operate.ActionRetryDeadLetters})
	if err != nil || len(audit) != 1 || audit[0].Changed != 1 {
		t.Errorf("audit: %+v, %v", audit, err)
	}
	h.end()
	second := b.router(b.config())
	second.Handle("billing", topic, "order.seen", h.handle)
	b.start(second)
	poll.Until(t, "the first is handled", func() bool { return b.effectCount() == 1 && b.parkedCount(Retry) == 0 })
	if n := b.parkedCount(DeadLetter); n != 4 {
		t.Errorf("%d dead letters are left: the others were retried by nobody", n)
	}
	n, err := b.operator.RetryCarefully(t.Context(), operate.ParkedFilter{Consumer: "billing"}, operate.RetryOptions{TryFirst: true})
	if n != 4 || err != nil {
		t.Errorf("retried %d, %v", n, err)
	}
	poll.Until(t, "all had their effect", func() bool {
		return b.count("SELECT count(DISTINCT event) FROM effect") == 5 && b.count("SELECT count(*) FROM parked") == 0
	})
	if n := b.effectCount(); n != 5 {
		t.Errorf("%d effects of 5 events", n)
	}
}

// An edit that doesn't commit leaves the dead letter as it was. One that has committed is found by a restart, before and after a process
// that dies in its handler; copies of what was delivered don't bring the old content back.
func TestEditSurvivesADeadProcess(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]bool{"ordered": true, "without order": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			const delivered, edited = `{"cents":-1}`, `{"cents":100}`
			h := newHang()
			p := newProbe()
			start := func() *Router {
				cfg := b.config()
				cfg.Listener = p.listener()
				r := b.router(cfg)
				r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
					if string(e.Body) != edited {
						return Dead(errors.New("no amount"))
					}
					return h.handle(ctx, tx, e)
				})
				b.start(r)
				return r
			}
			e := loose("order.changed", "4711")
			if ordered {
				e = newChain("4711").next(1)[0]
			}
			e.Body = []byte(delivered)
			first := start()
			b.broker.publish(e)
			poll.Until(t, "it is a dead letter", func() bool { return b.parkedCount(DeadLetter) == 1 && b.broker.idle() })
			b.stop(first)

			ref, edit := operate.DeadLetterRef{Consumer: "billing", EventID: e.ID}, operate.Edit{Body: []byte(edited)}
			died := errors.New("died before the commit")
			dies := testoperator.Of(t, operate.Config{
				Pool: b.pool, Schema: b.schema, OnAudit: func(context.Context, pgx.Tx, operate.AuditEntry) error { return died },
			})
			if err := dies.EditDeadLetter(t.Context(), ref, edit); !errors.Is(err, died) {
				t.Errorf("edited: %v", err)
			}
			if n := b.count("SELECT count(*) FROM parked WHERE reason = 'dead' AND NOT edited AND body = $1", []byte(delivered)); n != 1 || b.count("SELECT count(*) FROM edited_event") != 0 {
				t.Errorf("an edit that did not commit left %d dead letters as they were", n)
			}
			if err := b.operator.EditDeadLetter(t.Context(), ref, edit); err != nil {
				t.Fatal(err)
			}
			b.broker.publish(e) // a copy that comes before the retry
			second := start()
			<-h.began
			b.kill(second)
			if n := b.count("SELECT count(*) FROM parked WHERE reason = 'retry' AND edited AND body = $1", []byte(edited)); n != 1 || b.effectCount() != 0 {
				t.Errorf("a restart finds %d edited events, %d effects", n, b.effectCount())
			}
			h.end()
			start()
			poll.Until(t, "it is handled", func() bool {
				return b.effectCount() == 1 && b.count("SELECT count(*) FROM parked") == 0 && b.broker.idle()
			})
			duplicates := p.get("duplicate")
			b.broker.publish(e) // a copy that comes after it
			poll.Until(t, "the copy is settled", func() bool { return b.broker.idle() && p.get("duplicate") == duplicates+1 })
			if n := b.effectCount(); n != 1 || b.count("SELECT count(*) FROM parked") != 0 {
				t.Errorf("%d effects, and %d parked", n, b.count("SELECT count(*) FROM parked"))
			}
			originals, err := b.operator.Originals(t.Context(), "billing", e.ID)
			if err != nil || len(originals) != 1 || string(originals[0].Body) != delivered {
				t.Errorf("originals: %+v, %v", originals, err)
			}
		})
	}
}

// A pause commits while a handler runs. If that commits, its event is handled and none after it; if its process dies, a restart finds the
// pause and the event, and handles it after the resume, as the first attempt.
func TestPauseDuringATurn(t *testing.T) {
	t.Parallel()
	for _, target := range []operate.PauseTarget{
		wholeBilling,
		{Kind: operate.PauseHandler, Consumer: "billing", Topic: topic, Type: "order.changed"},
		{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: "4711"},
	} {
		for _, dies := range []bool{false, true} {
			t.Run(map[bool]string{false: "commits", true: "dies"}[dies]+"/"+string(target.Kind), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				h := newHang()
				r := b.billing(h.handle)
				events := newChain("4711").next(2)
				b.broker.publish(events[0])
				<-h.began
				b.pause(target)
				b.broker.publish(events[1])
				handled := 0
				if dies {
					b.kill(r)
					h.end()
					r = b.billing(h.handle)
				} else {
					h.release()
					handled = 1
					poll.Until(t, "the handler that ran has committed", func() bool { return b.effectCount() == handled })
				}
				poll.Until(t, "the pause is noticed", func() bool { return len(r.Paused()) == 1 })
				poll.Until(t, "the others are held", func() bool {
					open, _ := b.broker.openDeliveries()
					return open+b.count("SELECT count(*) FROM parked") == len(events)-handled
				})
				b.looksAgain(r)
				b.wantOrder("4711", events[:handled]...)
				b.resume(target)
				poll.Within(t, 10*time.Second, "it goes on", func() bool { return b.effectCount() >= len(events) && b.broker.idle() })
				b.wantOrder("4711", events...)
				if n := b.count("SELECT count(*) FROM effect WHERE attempt <> 1"); n != 0 {
					t.Errorf("%d attempts were counted", n)
				}
			})
		}
	}
}
