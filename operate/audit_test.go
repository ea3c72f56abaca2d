package operate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

var maria = operate.Actor{Name: "maria", Reason: "the gateway is back"}

// Each change leaves an entry that says who made it, why, what was selected, and what was before and after.
func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	ctx := operate.WithActor(t.Context(), maria)
	dead := park(t, pool, "dead", 1)
	if _, err := pool.Exec(ctx, "UPDATE parked SET body = 'card 4111', attempts = 7, last_error = 'no such account'"); err != nil {
		t.Fatal(err)
	}
	gap := uuid.New()
	testExec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	testExec(`INSERT INTO parked (consumer, event_id, reason, next_at, source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name, content_type, body)
		VALUES ('billing', $1, 'gap', 'infinity', 'shop', 'orders', 'order.changed', 'other', 5, 4, now(), '', '', '', '', '')`, gap)
	testExec("INSERT INTO position (consumer, source, topic, subject, sequence) VALUES ('billing', 'shop', 'orders', '4711', 7)")
	testExec("INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'old')")
	change := func(n int, err error) {
		t.Helper()
		if err != nil || n != 1 {
			t.Fatalf("changed %d, %v", n, err)
		}
	}
	change(o.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"}))
	testExec("UPDATE parked SET reason = 'dead' WHERE event_id = $1", dead)
	change(o.DiscardDeadLetters(ctx, operate.ParkedFilter{EventID: dead}))
	if err := errors.Join(o.AcceptGap(ctx, "billing", gap), o.ResetPosition(ctx, "billing", stream, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.RetireHandler(ctx, operate.Handler{Consumer: "billing", Topic: "orders", Type: "old"}); err != nil {
		t.Fatal(err)
	}
	list, err := o.Audit(ctx, operate.AuditFilter{Actor: "maria"})
	if err != nil {
		t.Fatal(err)
	}
	now, err := o.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	slices.Reverse(list)
	for _, e := range list {
		if e.Reason != maria.Reason || e.Role == "" || e.Operation == uuid.Nil || now.Sub(e.At) > time.Minute || now.Before(e.At) {
			t.Errorf("entry %+v", e)
		}
		got = append(got, fmt.Sprintf("%s %d %v %s: %s > %s", e.Action, e.Changed, e.IDs, e.Filter, e.Before, e.After))
	}
	want := []string{
		`dead_letters.retry 1 [D] {"consumer":"billing"}: [{"consumer":"billing","event_id":"D","type":"order.changed","subject":"4711","reason":"dead","attempts":7,"last_error":"no such account"}] > {"attempts":0,"reason":"retry"}`,
		`dead_letters.discard 1 [D] {"event_id":"D"}: {"consumer":"billing","event_id":"D","type":"order.changed","subject":"4711","reason":"dead","attempts":0,"last_error":"no such account"} > `,
		`gap.accept 1 [G] {"consumer":"billing","event_id":"G"}: {"reason":"gap"} > {"reason":"retry"}`,
		`position.reset 1 [4711] {"consumer":"billing","source":"shop","subject":"4711","topic":"orders"}: {"sequence":7} > {"sequence":3}`,
		`handler.retire 0 [] {"consumer":"billing","topic":"orders","type":"old"}: {"registered":true} > {"registered":false}`,
	}
	text := strings.NewReplacer(dead.String(), "D", gap.String(), "G").Replace(strings.Join(got, "\n"))
	if text != strings.Join(want, "\n") {
		t.Errorf("the audit has\n%s\nwant\n%s", text, strings.Join(want, "\n"))
	}
	if strings.Contains(text, "4111") {
		t.Error("a body is in the audit")
	}
}

// A change and its entry are one transaction: a change that fails leaves no entry, and one whose entry can't be written is not made.
func TestAuditIsInTheTransactionOfTheChange(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	refused := errors.New("refused")
	seen := 0
	hook := func(_ context.Context, tx pgx.Tx, e operate.AuditEntry) error {
		seen++
		var own int64
		if err := tx.QueryRow(ctx, "SELECT changed FROM audit WHERE id = $1", e.ID).Scan(&own); err != nil || own != e.Changed || e.At.IsZero() {
			t.Errorf("entry %+v in its transaction: %d, %v", e, own, err)
		}
		return refused
	}
	o := testoperator.Of(t, operate.Config{Pool: pool, Schema: schema, OnAudit: hook, Actor: "job"})
	park(t, pool, "dead", 1)
	audited := func() (n int) {
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM audit").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n, err := o.RetryDeadLetters(ctx, operate.ParkedFilter{All: true}); n != 0 || !errors.Is(err, refused) {
		t.Errorf("retried %d, %v", n, err)
	}
	if n := parkedCount(t, pool, "reason = 'dead'"); n != 1 || audited() != 0 || seen != 1 {
		t.Errorf("%d dead letters, %d entries, %d calls: the change was not rolled back with its entry", n, audited(), seen)
	}
	if err := o.AcceptGap(ctx, "billing", uuid.New()); !errors.Is(err, operate.ErrNoGap) || audited() != 0 {
		t.Errorf("%d entries of a change that failed (%v)", audited(), err)
	}
	if n, err := o.DiscardWaiting(ctx, operate.WaitingFilter{All: true}); n != 0 || err != nil || audited() != 0 {
		t.Errorf("%d entries of a change of nothing (%v)", audited(), err)
	}
	testdb.ExecIn(t, pool.Config().ConnString(), "DROP TABLE "+schema+".audit")
	if n, err := testoperator.New(t, pool, schema).RetryDeadLetters(ctx, operate.ParkedFilter{All: true}); n != 0 || err == nil {
		t.Errorf("retried %d without an entry, %v", n, err)
	}
	if n := parkedCount(t, pool, "reason = 'dead'"); n != 1 {
		t.Error("a change without an entry was made")
	}
}

// An entry is bounded, counts in full, and lists are read in pages.
func TestAuditIsBoundedAndPaged(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	ctx := operate.WithActor(t.Context(), operate.Actor{Name: strings.Repeat("m", 1000), Reason: strings.Repeat("r", 10_000)})
	for i := range 150 {
		park(t, pool, "dead", int64(i+1))
	}
	if _, err := pool.Exec(ctx, "UPDATE parked SET last_error = repeat('e', 4000)"); err != nil {
		t.Fatal(err)
	}
	if n, err := o.RetryDeadLetters(ctx, operate.ParkedFilter{All: true}); n != 150 || err != nil {
		t.Fatalf("retried %d, %v", n, err)
	}
	for _, action := range []operate.Action{operate.ActionRetryRejected, operate.ActionResend, operate.ActionPause, operate.ActionDiscardDeadLetters} {
		if err := o.RecordDenied(operate.WithActor(ctx, operate.Actor{Name: "eve"}), action, operate.ParkedFilter{All: true}, "no right"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := o.Audit(ctx, operate.AuditFilter{Action: operate.ActionRetryDeadLetters})
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	e := list[0]
	data, _ := json.Marshal(e)
	if e.Changed != 150 || len(e.IDs) != operate.MaxAuditIDs || len(data) > 40<<10 || len(e.Actor) > 210 || len(e.Reason) > 510 {
		t.Errorf("%d changed, %d ids, %d bytes, actor of %d and reason of %d bytes", e.Changed, len(e.IDs), len(data), len(e.Actor), len(e.Reason))
	}
	denied, err := o.Audit(ctx, operate.AuditFilter{Denied: true, Limit: 3})
	if err != nil || len(denied) != 3 || denied[0].Actor != "eve" || !denied[0].Denied || denied[0].Changed != 0 || string(denied[0].After) != `{"denied":"no right"}` {
		t.Fatalf("%+v, %v", denied, err)
	}
	rest, err := o.Audit(ctx, operate.AuditFilter{Denied: true, Before: denied[2].ID})
	if err != nil || len(rest) != 1 || rest[0].ID >= denied[2].ID {
		t.Errorf("the next page has %+v, %v", rest, err)
	}
	if list, err := o.Audit(ctx, operate.AuditFilter{ID: e.IDs[3], Operation: e.Operation, Since: e.At, Until: e.At.Add(time.Millisecond)}); err != nil || len(list) != 1 {
		t.Errorf("of an id: %+v, %v", list, err)
	}
}

// Whoever is refused can't fill the audit: neither with the same attempt nor with many, and hides nobody else's.
func TestDeniedAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	attempt := func(name, consumer string) bool {
		t.Helper()
		ctx := operate.WithActor(t.Context(), operate.Actor{Name: name})
		err := o.RecordDenied(ctx, operate.ActionPause, operate.PauseTarget{Kind: operate.PauseConsumer, Consumer: consumer}, "no right")
		if err != nil && !errors.Is(err, operate.ErrTooManyDenied) {
			t.Fatal(err)
		}
		return err == nil
	}
	recorded := func(actor string) []operate.AuditEntry {
		t.Helper()
		list, err := o.Audit(t.Context(), operate.AuditFilter{Actor: actor, Denied: true})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	later := func(d time.Duration) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), "UPDATE audit SET at = at - make_interval(secs => $1)", d.Seconds()); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		attempt("eve", "billing")
	}
	if n := len(recorded("eve")); n != 1 {
		t.Errorf("%d entries of the same attempt", n)
	}
	later(2 * time.Minute)
	attempt("eve", "billing")
	if n := len(recorded("eve")); n != 2 {
		t.Errorf("%d entries, want another of the same attempt minutes later", n)
	}
	for i := range 100 {
		if want := i < operate.MaxDenied-2; attempt("eve", fmt.Sprint(i)) != want {
			t.Errorf("attempt %d was recorded: want %v", i, want)
		}
	}
	if n := len(recorded("eve")); n != operate.MaxDenied {
		t.Errorf("%d entries of an hour", n)
	}
	attempt("mallory", "billing")
	if n := len(recorded("mallory")); n != 1 {
		t.Errorf("%d entries of somebody else", n)
	}
	later(time.Hour)
	attempt("eve", "billing")
	if n := len(recorded("eve")); n != operate.MaxDenied+1 {
		t.Errorf("%d entries, want one more after an hour", n)
	}
}

// A resend is announced before its first event, and its end says how many were sent.
func TestResendIsAudited(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startService(t, func(c *outbox.Config) { c.SweepGrace = time.Minute })
	for range 3 {
		if err := s.publish(ctx, rocketflow.Event{ID: uuid.Must(uuid.NewV7()), Topic: "orders", Type: "order.placed", Subject: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.operator.Resend(ctx, operate.ResendFilter{Topic: "orders", Limit: 2}); n != 2 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	list, err := s.operator.Audit(ctx, operate.AuditFilter{Action: operate.ActionResend})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	end, begin := list[0], list[1]
	if begin.Changed != 0 || end.Changed != 2 || len(end.IDs) != 2 || begin.Operation != end.Operation || string(end.After) != `{"state":"ended"}` ||
		string(begin.Filter) != `{"topic":"orders","limit":2}` {
		t.Errorf("begin %+v\nend %+v", begin, end)
	}
}

// An entry can be published as an event, in the transaction of the change.
func TestAuditIsPublished(t *testing.T) {
	t.Parallel()
	s := startService(t, nil)
	o := testoperator.Of(t, operate.Config{
		Pool: s.pool, Schema: s.operator.Schema(),
		OnAudit: func(ctx context.Context, tx pgx.Tx, e operate.AuditEntry) error {
			return s.outbox.Join(tx).Publish(ctx, AuditRecorded{e})
		},
	})
	park(t, s.pool, "dead", 1)
	if _, err := o.RetryDeadLetters(operate.WithActor(t.Context(), maria), operate.ParkedFilter{All: true}); err != nil {
		t.Fatal(err)
	}
	var subject string
	var body []byte
	if err := s.pool.QueryRow(t.Context(), "SELECT subject, body FROM outbox WHERE type = 'audit.recorded'").Scan(&subject, &body); err != nil {
		t.Fatal(err)
	}
	var e operate.AuditEntry
	if err := json.Unmarshal(body, &e); err != nil || subject != "maria" || e.Action != operate.ActionRetryDeadLetters || e.Changed != 1 {
		t.Errorf("subject %q, %s, %v", subject, body, err)
	}
}
