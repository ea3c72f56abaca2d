package handlers

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
)

// failing returns a handler that leaves its effect and then fails, for events of a subject, so many times.
func failing(subject string, times int64, err error) rocketflow.HandlerFunc {
	var n atomic.Int64
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e := effect(ctx, tx, e); e != nil {
			return e
		}
		if e.Subject == subject && n.Add(1) <= times {
			return err
		}
		return nil
	}
}

var errBroken = errors.New("broken")

const always = int64(1) << 60

func TestFailureHoldsOnlyItsStream(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener, cfg.Lanes = p.listener(), 1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", failing("bad", always, errBroken))
	b.start(r)
	bad, good := newChain("bad").next(3), newChain("good").next(3)
	for i := range bad {
		b.broker.publish(bad[i], good[i])
	}
	poll.Until(t, "a dead letter, and the others are done", func() bool { return p.get("dead") == 1 && b.effectCount() == 3 })
	b.wantOrder("good", good...)
	poll.Until(t, "followers are parked", func() bool { return b.parkedCount(Gap) == 2 && b.broker.idle() })
	list, err := b.operator.DeadLetters(context.Background(), operate.ParkedFilter{Consumer: "billing"})
	if err != nil || len(list) != 1 {
		t.Fatalf("dead letters: %v, %v", list, err)
	}
	d := list[0]
	if d.Event.ID != bad[0].ID || d.Attempts != 3 || d.LastError != "broken" || d.Event.Headers["tenant"] != "acme" || string(d.Event.Body) != string(bad[0].Body) || !d.NextAt.IsZero() {
		t.Errorf("dead letter is %+v", d)
	}
	waiting, err := b.operator.ParkedEvents(context.Background(), operate.ParkedFilter{Subject: "bad"})
	if err != nil || len(waiting) != 2 || waiting[0].Reason != operate.StateGap {
		t.Errorf("waiting: %v, %v", waiting, err)
	}
}

func TestRetrySucceedsWithFollowersInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", failing("bad", 2, errBroken))
	b.start(r)
	events := newChain("bad").next(6)
	b.broker.publish(events...)
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 6 })
	b.wantOrder("bad", events...)
	if got := b.effects("bad")[0].Attempt; got < 2 {
		t.Errorf("first event succeeded at attempt %d, want a later one", got)
	}
	poll.Until(t, "nothing is parked", func() bool { return b.count("SELECT count(*) FROM parked") == 0 && b.broker.idle() })
}

func TestDeadLetterRetryAndDiscard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	r := b.router(b.config())
	var healed atomic.Bool
	handler := func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.Headers["poison"] != "" && !healed.Load() {
			return Dead(errBroken)
		}
		return effect(ctx, tx, e)
	}
	r.Handle("billing", topic, "order.changed", handler)
	r.Handle("billing", topic, "order.seen", handler)
	b.start(r)
	poison := map[string]string{"poison": "yes"}
	x, y, alone := newChain("x").next(3), newChain("y").next(3), loose("order.seen", "z")
	x[0].Headers, y[1].Headers, alone.Headers = poison, poison, poison
	b.broker.publish(x...)
	b.broker.publish(y...)
	b.broker.publish(alone)
	poll.Until(t, "three dead letters", func() bool { return b.parkedCount(DeadLetter) == 3 && b.broker.idle() })

	if _, err := b.operator.RetryDeadLetters(ctx, operate.ParkedFilter{}); err == nil {
		t.Error("an empty filter was accepted")
	}
	if n, err := b.operator.DiscardDeadLetters(ctx, operate.ParkedFilter{Subject: "y"}); n != 1 || err != nil {
		t.Fatalf("discard: %d, %v", n, err)
	}
	poll.Until(t, "followers of the discarded ran", func() bool { return len(b.effects("y")) == 2 })
	b.wantOrder("y", y[0], y[2])
	if n, err := b.operator.RetryDeadLetters(ctx, operate.ParkedFilter{EventID: x[0].ID}); n != 1 || err != nil {
		t.Fatalf("retry: %d, %v", n, err)
	}
	poll.Until(t, "dead again", func() bool { return b.parkedCount(DeadLetter) == 2 })
	healed.Store(true)
	if n, err := b.operator.RetryDeadLetters(ctx, operate.ParkedFilter{All: true}); n != 2 || err != nil {
		t.Fatalf("retry all: %d, %v", n, err)
	}
	poll.Until(t, "all ran", func() bool { return len(b.effects("x")) == 3 && len(b.effects("z")) == 1 })
	b.wantOrder("x", x...)
	b.broker.publish(y[1], alone) // what was discarded or handled stays so
	poll.Until(t, "settled", b.broker.idle)
	if n := b.effectCount(); n != 6 {
		t.Errorf("%d effects, want 6", n)
	}
}

// A dead letter that a handler's transaction has locked is waited for; the others needn't.
func TestRetryWaitsForALock(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t)
	cfg := b.config()
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return Dead(errBroken) })
	b.start(r)
	locked, free := newChain("locked").next(1)[0], newChain("free").next(1)[0]
	b.broker.publish(locked, free)
	poll.Until(t, "two dead letters", func() bool { return b.parkedCount(DeadLetter) == 2 && b.broker.idle() })
	b.stop(r)
	tx, err := b.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "SELECT FROM parked WHERE subject = 'locked' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	type retried struct {
		n   int
		err error
	}
	done := make(chan retried, 1)
	go func() {
		n, err := b.operator.RetryDeadLetters(ctx, operate.ParkedFilter{All: true})
		done <- retried{n, err}
	}()
	poll.Until(t, "the free one is due", func() bool { return b.parkedCount(Retry) == 1 && b.parkedCount(DeadLetter) == 1 })
	select {
	case got := <-done:
		t.Fatalf("the other was locked, yet got %+v", got)
	default:
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != (retried{2, nil}) || b.parkedCount(Retry) != 2 {
		t.Errorf("got %+v and %d due, want 2", got, b.parkedCount(Retry))
	}
}

func TestAcceptGap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.GapWait = -1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("a").next(4)
	b.broker.publish(events[0], events[2], events[3])
	poll.Until(t, "two wait", func() bool { return b.parkedCount(Gap) == 2 })
	if err := b.operator.AcceptGap(context.Background(), "billing", events[3].ID); !errors.Is(err, operate.ErrNoGap) {
		t.Errorf("accepted one that isn't the first: %v", err)
	}
	if err := b.operator.AcceptGap(context.Background(), "billing", events[2].ID); err != nil {
		t.Fatalf("accept: %v", err)
	}
	poll.Until(t, "both ran", func() bool { return b.effectCount() == 3 })
	b.wantOrder("a", events[0], events[2], events[3])
}

func TestUnreadableMessagesAreDeadLetters(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	On(r, "billing", func(ctx context.Context, tx rocketflow.Tx, o placed) error {
		e, _ := EventFrom(ctx)
		return effect(ctx, tx, e)
	})
	r.Handle("billing", topic, "plain", effect)
	b.start(r)
	body := loose("order.placed", "a")
	body.Body = []byte("no json")
	b.broker.publish(body)
	broken := wire.MessageOf(loose("order.placed", "b"))
	broken.Properties["CE_time"] = "yesterday"
	hostile := wire.MessageOf(newChain("c\x00").next(1)[0])
	hostile.Properties["odd"] = "\x00\xff"
	b.broker.send(broken, hostile,
		broker.Message{ID: "1", Topic: topic, Properties: map[string]string{"CE_specversion": "1.0", "odd": "\x00\xff"}, Body: []byte("raw\x00")},
		broker.Message{ID: "2", Topic: topic, Tag: "plain", Keys: []string{"foreign"}, Body: []byte("x")})
	poll.Until(t, "all settled", func() bool { return b.broker.idle() && p.get("received") == 5 })
	if n := b.parkedCount(DeadLetter); n != 4 {
		t.Errorf("%d dead letters, want 4", n)
	}
	if rows := b.effects("foreign"); len(rows) != 1 || rows[0].Type != "plain" || b.effectCount() != 1 {
		t.Errorf("effects %v, want that of the foreign message", b.effects(""))
	}
	for _, i := range p.dead {
		if !errors.Is(i.Err, rocketflow.ErrUndecodable) {
			t.Errorf("dead because %v, want ErrUndecodable", i.Err)
		}
	}
	list, err := b.operator.DeadLetters(context.Background(), operate.ParkedFilter{Type: ""})
	if err != nil || !slices.ContainsFunc(list, func(d operate.ParkedEvent) bool { return string(d.Event.Body) == "raw\x00" && d.Event.ID != uuid.Nil }) {
		t.Errorf("raw body is not kept: %v, %v", list, err)
	}
}

// Whatever a message contains, it holds back no other: what Postgres can't store becomes a dead letter that it can.
func TestOddMessagesAreDeadLetters(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener, cfg.Lanes = p.listener(), 1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return Dead(errors.New("no")) })
	r.Handle("billing", topic, "order.placed", effect)
	b.start(r)
	long := func() string { // which an index can't compress
		random := make([]byte, 2000)
		_, _ = rand.Read(random)
		return hex.EncodeToString(random)
	}
	receive := func(d broker.Delivery) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := (*r.running.Load())[0].receive(ctx, d); err != nil {
			t.Errorf("%.80q isn't settled: %v", d.ID, err)
		}
	}
	for _, d := range []broker.Delivery{
		{Message: broker.Message{ID: "early"}, Born: time.UnixMilli(-300_000_000_000_000)},
		{Message: broker.Message{ID: "late"}, Born: time.UnixMilli(1 << 60), Stored: time.UnixMilli(1 << 61)},
		{Message: broker.Message{ID: "long", Topic: long(), ShardingKey: long(), Properties: map[string]string{"CE_source": long(), "CE_type": long()}}},
		{Message: broker.Message{ID: "\x00\xff", Keys: []string{"\x00\xff"}, Properties: map[string]string{"CE_subject": "\x00\xff", "\x00": "\xff\x00"}}},
	} {
		d.Topic, d.Body = cmp.Or(d.Topic, topic), []byte(d.ID)
		d.Tag = cmp.Or(d.Tag, "order.changed")
		for range 2 { // the second is known
			receive(d)
		}
	}
	receive(broker.Delivery{Message: wire.MessageOf(loose("order.placed", "next"))})
	if n := p.get("handled"); n != 1 {
		t.Errorf("%d events handled, want the next one", n)
	}
	list, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{})
	if err != nil || len(list) != 4 {
		t.Fatalf("%d dead letters, want 4: %v", len(list), err)
	}
	for _, d := range list {
		_, err := json.Marshal(d)
		if err != nil || string(d.Event.Body) == "long" != strings.Contains(d.LastError, "Postgres can't store it") {
			t.Errorf("dead letter %q because %s: %v", d.Event.Body, d.LastError, err)
		}
	}
}

func TestPanicsDeadlinesAndReturnedErrors(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		fail    rocketflow.HandlerFunc
		attempt int    // at which it succeeds; 0: never
		said    string // by the listener
	}{
		{"panic", func(context.Context, rocketflow.Tx, rocketflow.Event) error { panic("boom") }, 2, "panicked"},
		{"deadline", func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error {
			_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		}, 2, "parked retry"},
		{"retry after", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return RetryAfter(10 * time.Millisecond) }, 1, "parked retry"},
		{"swallowed error", func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error {
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			return nil
		}, 2, "parked retry"},
		{"own commit", func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error { return tx.Commit(ctx) }, 2, "parked retry"},
		{"stale", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return rocketflow.ErrStale }, 0, "discarded"},
		{"discard", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return Discard(errBroken) }, 0, "discarded"},
		{"dead", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return Dead(errBroken) }, 0, "dead"},
		{"undecodable", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return rocketflow.ErrUndecodable }, 0, "dead"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, p := setup(t), newProbe()
			cfg := b.config()
			cfg.Listener, cfg.Timeout = p.listener(), 500*time.Millisecond
			r := b.router(cfg)
			var calls atomic.Int64
			handler := func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
				if err := effect(ctx, tx, e); err != nil {
					return err
				}
				if e.Headers["first"] != "" && (calls.Add(1) == 1 || c.attempt == 0) {
					return c.fail(ctx, tx, e)
				}
				return nil
			}
			r.Handle("billing", topic, "order.changed", handler)
			b.start(r)
			events := newChain("a").next(2)
			events[0].Headers = map[string]string{"first": "yes"}
			b.broker.publish(events[0])
			poll.Until(t, "said "+c.said, func() bool { return p.get(c.said) > 0 })
			b.broker.publish(events[1])
			switch {
			case c.attempt > 0:
				poll.Until(t, "both ran", func() bool { return b.effectCount() == 2 })
				b.wantOrder("a", events...)
				if got := b.effects("a")[0].Attempt; got != c.attempt {
					t.Errorf("succeeded at attempt %d, want %d", got, c.attempt)
				}
			case c.said == "discarded":
				poll.Until(t, "the follower ran", func() bool { return b.effectCount() == 1 })
				b.wantOrder("a", events[1])
			default:
				poll.Until(t, "the follower is parked", func() bool { return b.parkedCount(Gap) == 1 })
				b.wantOrder("a")
			}
		})
	}
}

func TestStartReportsWhatCantBeRegistered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	for name, register := range map[string]func(*Router){
		"twice":    func(r *Router) { r.Handle("a", topic, "x", effect); r.Handle("a", topic, "x", effect) },
		"consumer": func(r *Router) { r.Handle("a b", topic, "x", effect) },
		"topic":    func(r *Router) { r.Handle("a", "", "x", effect) },
		"type":     func(r *Router) { r.Handle("a", topic, "x y", effect) },
		"handler":  func(r *Router) { r.Handle("a", topic, "x", nil) },
		"zero meta": func(r *Router) {
			On(r, "a", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil })
		},
		"pointer": func(r *Router) { On(r, "a", func(context.Context, rocketflow.Tx, *placed) error { return nil }) },
	} {
		r := b.router(b.config())
		register(r)
		var field *rocketflow.FieldError
		if err := r.Start(ctx); !errors.As(err, &field) {
			t.Errorf("%s: start returned %v, want a FieldError", name, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an empty Config was accepted")
	}
	b.broker.refused = broker.ErrTopicNotFound
	r := b.router(b.config())
	r.Handle("a", topic, "x", effect)
	if err := r.Start(ctx); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("start returned %v, want ErrTopicNotFound", err)
	}
}

// placed is a payload of these tests.
type placed struct {
	Order string `json:"order"`
}

func (p placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: topic, Type: "order.placed", Subject: p.Order}
}

func TestOwnEndOfTransactionIsRefused(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	r.Handle("billing", topic, "order.seen", func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error {
		_, err := tx.Exec(ctx, "ROLLBACK")
		return err
	})
	b.start(r)
	b.broker.publish(loose("order.seen", "a"))
	poll.Until(t, "it is blamed on the handler", func() bool { return p.get("dead") == 1 })
}

// A handler that loses its connection each time is the event's trouble, not Postgres'.
func TestHandlerThatKillsItsConnection(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener = p.listener()
	cfg.Retry.Attempts = 1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.Subject == "bad" {
			_, err := tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			return err
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	good := newChain("good").next(2)
	b.broker.publish(newChain("bad").next(1)...)
	b.broker.publish(good...)
	poll.Until(t, "it is dead, the others are done", func() bool { return p.get("dead") == 1 && b.effectCount() == 2 })
	b.wantOrder("good", good...)
}
