package operate_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// stream is the stream that park parks events of.
var stream = rocketflow.Stream{Source: "shop", Topic: "orders", Subject: "4711"}

// park parks an event of the consumer billing.
func park(t *testing.T, pool *pgxpool.Pool, reason string, sequence int64) uuid.UUID {
	t.Helper()
	id := uuid.New()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO parked (consumer, event_id, reason, next_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, body)
		VALUES ('billing', $1, $2, 'infinity', 'shop', 'orders', 'order.changed', '4711', $3, $4, now(), '', '', '', '', '')`,
		id, reason, sequence, max(sequence-1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parkedCount(t *testing.T, pool *pgxpool.Pool, where string) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM parked WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A discarded dead letter counts as handled, and the event that waited behind it is due.
func TestDiscardDeadLettersFreesTheStream(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	dead, later := park(t, pool, "dead", 1), park(t, pool, "dead", 3)
	waiting := park(t, pool, "gap", 2)
	letters, err := o.DeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"})
	if err != nil || len(letters) != 2 || letters[0].Reason != operate.StateDead {
		t.Fatalf("got %+v, %v", letters, err)
	}
	if list, err := o.ParkedEvents(ctx, operate.ParkedFilter{Subject: "4711"}); err != nil || len(list) != 1 || list[0].Event.ID != waiting {
		t.Fatalf("got %+v, %v", list, err)
	}
	if n, err := o.DiscardDeadLetters(ctx, operate.ParkedFilter{EventID: later}); err != nil || n != 0 {
		t.Errorf("discarded %d (%v) that isn't the first of its stream", n, err)
	}
	if n, err := o.DiscardDeadLetters(ctx, operate.ParkedFilter{EventID: dead}); err != nil || n != 1 {
		t.Errorf("discarded %d (%v), want 1", n, err)
	}
	if n := parkedCount(t, pool, "reason = 'gap' AND next_at <= now()"); n != 1 {
		t.Errorf("%d events are due, want 1", n)
	}
}

// A retried dead letter is due with all its attempts.
func TestRetryDeadLettersMakesThemDue(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	park(t, pool, "dead", 1)
	park(t, pool, "dead", 2)
	if n, err := o.RetryDeadLetters(t.Context(), operate.ParkedFilter{All: true, Limit: 1}); err != nil || n != 1 {
		t.Errorf("retried %d (%v), want 1", n, err)
	}
	if n, err := o.RetryDeadLetters(t.Context(), operate.ParkedFilter{Type: "order.changed"}); err != nil || n != 1 {
		t.Errorf("retried %d (%v), want 1", n, err)
	}
	if n := parkedCount(t, pool, "reason = 'retry' AND next_at <= now() AND attempts = 0"); n != 2 {
		t.Errorf("%d events are due, want 2", n)
	}
}

// What can't be repaired because it isn't there is an error that can be matched, and changes nothing.
func TestRepairsOfUnknownThingsAreErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	first, second := park(t, pool, "gap", 5), park(t, pool, "gap", 6)
	if err := o.AcceptGap(ctx, "billing", second); !errors.Is(err, operate.ErrNoGap) {
		t.Errorf("accept the second: %v", err)
	}
	if err := o.AcceptGap(ctx, "billing", first); err != nil {
		t.Errorf("accept the first: %v", err)
	}
	if err := o.AcceptGap(ctx, "billing", first); !errors.Is(err, operate.ErrNoGap) {
		t.Errorf("accept twice: %v", err)
	}
	if err := o.ResetPosition(ctx, "billing", stream, 4); !errors.Is(err, operate.ErrUnknownStream) {
		t.Errorf("reset: %v", err)
	}
	if _, err := pool.Exec(ctx, "INSERT INTO position VALUES ('billing', 'shop', 'orders', '4711', 9)"); err != nil {
		t.Fatal(err)
	}
	if err := o.ResetPosition(ctx, "billing", stream, 4); err != nil {
		t.Errorf("reset: %v", err)
	}
	if err := o.ResetPosition(ctx, "billing", stream, -1); err == nil {
		t.Error("reset to -1 was accepted")
	}
	handler := operate.Handler{Consumer: "billing", Topic: "orders", Type: "order.changed"}
	if n, err := o.RetireHandler(ctx, handler); !errors.Is(err, operate.ErrUnknownHandler) || n != 0 {
		t.Errorf("retire: %d, %v", n, err)
	}
	if _, err := pool.Exec(ctx, "UPDATE parked SET reason = 'unhandled' WHERE event_id = $1", second); err != nil {
		t.Fatal(err)
	}
	if n, err := o.RetireHandler(ctx, handler); err != nil || n != 1 {
		t.Errorf("retire: %d, %v", n, err)
	}
	if _, err := o.RetireHandler(ctx, operate.Handler{Consumer: "billing", Topic: "orders"}); err == nil {
		t.Error("a handler without a type was accepted")
	}
}
