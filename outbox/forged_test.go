package outbox_test

import (
	"log/slog"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

// A half message that carries a committed event's id, but another topic or type, is not that event's: it is rolled back,
// with the reason, and the event stays as it is.
func TestForgedHalfMessageIsRolledBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var log logged
	reasons := make(chan outbox.CheckReason, 10)
	b := setup(t, func(c *outbox.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Listener = &outbox.Listener{Checked: func(i outbox.CheckedInfo) { reasons <- i.Reason }}
	})
	b.broker.away(true)
	if err := b.credit(ctx, "a", 1); err != nil { // owed
		t.Fatal(err)
	}
	var event rocketflow.Event
	if err := b.pool.QueryRow(ctx, "SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body, (SELECT id::text FROM installation) FROM outbox").
		Scan(&event.ID, &event.Source, &event.Topic, &event.Type, &event.Subject, &event.Sequence, &event.Previous, &event.Time, &event.ContentType, &event.Body, &event.Database); err != nil {
		t.Fatal(err)
	}
	checkBack := func(change func(*rocketflow.Event)) broker.Decision {
		t.Helper()
		e := event
		change(&e)
		b.broker.mu.Lock()
		clear(b.broker.halves)
		b.broker.halves["m"] = wire.MessageOf(e)
		check, m := b.broker.check, b.broker.halves["m"]
		b.broker.mu.Unlock()
		d, done := check(ctx, broker.Check{Half: broker.Half{MessageID: "m"}, Message: broker.Delivery{Message: m, Attempt: 1}})
		if done != nil {
			done(broker.ErrUnavailable) // not taken
		}
		return d
	}
	if d := checkBack(func(e *rocketflow.Event) { e.Topic = "others" }); d != broker.Rollback {
		t.Errorf("of another topic: %v, want rollback", d)
	}
	if d := checkBack(func(e *rocketflow.Event) { e.Type = "account.closed" }); d != broker.Rollback {
		t.Errorf("of another type: %v, want rollback", d)
	}
	for range 2 {
		if r := <-reasons; r != outbox.CheckNotRecorded {
			t.Errorf("the reason is %q", r)
		}
	}
	if n := log.count("a half message differs from the event"); n != 2 {
		t.Errorf("it was logged %d times, want 2", n)
	}
	if d := checkBack(func(*rocketflow.Event) {}); d != broker.Commit {
		t.Errorf("the event's own: %v, want commit", d)
	}
}
