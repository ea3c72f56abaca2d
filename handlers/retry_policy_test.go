package handlers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/operate"
)

var (
	errLimited = errors.New("rate limit")
	errUnknown = errors.New("unknown customer")
	errSlow    = errors.New("slow")
)

// TestRetryRules walks through what a policy makes of a handler's error.
func TestRetryRules(t *testing.T) {
	t.Parallel()
	p := RetryPolicy{Attempts: 5, Base: time.Second, Max: time.Minute, Jitter: -1, Rules: []RetryRule{
		{Is: errLimited, Action: ActionWait, Wait: time.Hour},
		{Is: errUnknown, Action: ActionDeadLetter},
		{Match: ErrorAs[*fs.PathError], Action: ActionDiscard},
		{Is: errSlow, Retry: RetryPolicy{Attempts: 9, Base: 10 * time.Minute}},
		{Match: func(error) bool { panic("broken rule") }, Action: ActionDiscard},
		{Match: func(error) bool { runtime.Goexit(); return true }, Action: ActionDiscard},
		{Match: func(err error) bool { return err.Error() == "any" }, Action: ActionWait, Wait: time.Second},
	}}
	if err := p.validate("Retry."); err != nil {
		t.Fatal(err)
	}
	p = p.guarded(&guard.Reporter{Logger: slog.New(slog.DiscardHandler)})
	for _, c := range []struct {
		name   string
		err    error
		failed int
		action RetryAction
		final  bool
		want   inbox.Parking
	}{
		{"no rule", errors.New("other"), 1, ActionRetry, false, inbox.Parking{Reason: inbox.Retry, Attempts: 2, After: 2 * time.Second}},
		{"no rule, the last attempt", errors.New("other"), 4, ActionRetry, false, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 5, After: inbox.UntilWoken}},
		{"wait", fmt.Errorf("mail: %w", errLimited), 4, ActionWait, true, inbox.Parking{Reason: inbox.Retry, Attempts: 4, After: time.Hour}},
		{"dead letter", errUnknown, 0, ActionDeadLetter, true, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 1, After: inbox.UntilWoken}},
		{"discard by type", fmt.Errorf("read: %w", &fs.PathError{Err: errUnknown}), 0, ActionDeadLetter, true, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 1, After: inbox.UntilWoken}},
		{"retry so", errSlow, 4, ActionRetry, false, inbox.Parking{Reason: inbox.Retry, Attempts: 5, After: 10 * time.Minute}},
		{"retry so, the last attempt", errSlow, 8, ActionRetry, false, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 9, After: inbox.UntilWoken}},
		{"the handler says wait", RetryAfter(time.Minute), 2, ActionWait, true, inbox.Parking{Reason: inbox.Retry, Attempts: 2, After: time.Minute}},
		{"the handler's word goes before a rule", Dead(errLimited), 0, ActionDeadLetter, true, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 1, After: inbox.UntilWoken}},
		{"undecodable", rocketflow.ErrUndecodable, 0, ActionDeadLetter, true, inbox.Parking{Reason: inbox.DeadLetter, Attempts: 1, After: inbox.UntilWoken}},
		{"behind broken rules", errors.New("any"), 0, ActionWait, true, inbox.Parking{Reason: inbox.Retry, After: time.Second}},
	} {
		v := p.outcome(&handlerError{err: c.err})
		got := v.parking(c.failed)
		got.Err = nil
		if v.action != c.action || v.final != c.final || got != c.want {
			t.Errorf("%s: %s, final %v, %+v", c.name, v.action, v.final, got)
		}
	}
	for name, err := range map[string]error{
		"by type":         &fs.PathError{Err: errSlow},
		"by the handler":  Discard(errSlow),
		"a stale timeout": fmt.Errorf("%w: %w", errLimited, rocketflow.ErrStale),
	} {
		if v := p.outcome(&handlerError{err: err}); v.action != ActionDiscard || !v.final {
			t.Errorf("%s: %s, final %v; want discard", name, v.action, v.final)
		}
	}
	if v := p.outcome(errUnknown); v.action != ActionRetry {
		t.Errorf("an error that is not a handler's: %s", v.action)
	}
}

func TestRetryRulesThatAreRefused(t *testing.T) {
	t.Parallel()
	for field, rule := range map[string]RetryRule{
		"Is":             {Action: ActionDiscard},
		"Action":         {Is: errSlow, Action: "sometimes"},
		"Wait":           {Is: errSlow, Action: ActionWait},
		"Retry":          {Is: errSlow, Action: ActionDiscard, Retry: RetryPolicy{Base: time.Second}},
		"Retry.Rules":    {Is: errSlow, Retry: RetryPolicy{Rules: []RetryRule{{Is: errSlow}}}},
		"Retry.Jitter":   {Is: errSlow, Retry: RetryPolicy{Jitter: 2}},
		"Retry.Attempts": {Is: errSlow, Retry: RetryPolicy{Attempts: -1}},
	} {
		policy := RetryPolicy{Rules: []RetryRule{{Is: errLimited}, rule}}.withDefaults()
		want := "handlers.Config.Retry.Rules[1]." + field
		var invalid *rocketflow.FieldError
		if err := policy.validate("handlers.Config.Retry."); !errors.As(err, &invalid) || invalid.Field != want {
			t.Errorf("%v, want %s refused", err, want)
		}
	}
}

// A rule acts on the consumer that has it, and the router's policy on the others.
func TestRetryRulesOfAConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newProbe()
	cfg := b.config()
	cfg.Listener, cfg.Retry.Rules = p.listener(), []RetryRule{{Is: errUnknown, Action: ActionDeadLetter}}
	r := b.router(cfg)
	fail := func(context.Context, rocketflow.Tx, rocketflow.Event) error {
		return fmt.Errorf("look up: %w", errUnknown)
	}
	r.Handle("strict", topic, "order.changed", fail)
	r.Handle("lenient", topic, "order.changed", fail)
	r.Configure("lenient", ConsumerConfig{Retry: RetryPolicy{Rules: []RetryRule{{Is: errUnknown, Action: ActionDiscard}}}})
	b.start(r)
	b.broker.publish(newChain("order-1").next(1)...)
	b.broker.publish(loose("order.changed", "order-2"))
	poll.Until(t, "two dead letters and two discarded", func() bool { return p.get("dead") == 2 && p.get("discarded") == 2 })
	poll.Until(t, "all settled", b.broker.idle)
	list, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v: %v", list, err)
	}
	for _, letter := range list {
		if letter.Consumer != "strict" || letter.Attempts != 1 {
			t.Errorf("%+v", letter)
		}
	}
	if n := b.count("SELECT count(*) FROM inbox WHERE consumer = 'lenient'"); n != 1 {
		t.Errorf("%d discarded events are in the inbox, want 1", n)
	}
}

// What Postgres refuses at the commit counts an attempt, also of a parked event: it does not come back for ever.
func TestFailureAtTheCommitCountsAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.pool.Exec(t.Context(), "CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	r := b.router(b.config())
	r.Handle("deferred", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, _ rocketflow.Event) error {
		_, err := tx.Exec(ctx, "INSERT INTO once VALUES (1), (1)")
		return err
	})
	b.start(r)
	b.broker.publish(newChain("order-1").next(1)...)
	poll.Until(t, "a dead letter", func() bool { return b.parkedCount(DeadLetter) == 1 })
	list, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{})
	if err != nil || len(list) != 1 || list[0].Attempts != 3 {
		t.Errorf("%+v: %v", list, err)
	}
}

// Handlers that lock rows in opposite orders deadlock. Smaller batches end that without a failure that anybody sees.
func TestDeadlocksMakeBatchesSmaller(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 4
	if _, err := b.pool.Exec(t.Context(), "CREATE TABLE stock (n int PRIMARY KEY, sold int NOT NULL DEFAULT 0); INSERT INTO stock SELECT generate_series(0, 3)"); err != nil {
		t.Fatal(err)
	}
	p := newProbe()
	cfg := b.config()
	cfg.Listener = p.listener()
	r := b.router(cfg)
	r.Handle("stock", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		_, err := tx.Exec(ctx, "UPDATE stock SET sold = sold + 1 WHERE n = $1", int(e.ID[15])%rows)
		return err
	})
	const events = 200
	for i := range events {
		b.broker.publish(loose("order.changed", subjectN(i)))
	}
	b.start(r)
	poll.Until(t, "all events had their effect", func() bool { return b.count("SELECT coalesce(sum(sold), 0) FROM stock") == events })
	poll.Until(t, "all settled", b.broker.idle)
	if n := b.count("SELECT count(*) FROM parked"); n != 0 || p.get("dead") != 0 {
		t.Errorf("%d events are parked, %d dead letters", n, p.get("dead"))
	}
}
