package operate_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// A subject is found in each stream, wherever the source and the topic stand in the index.
func TestSubjectStatusFindsAllStreams(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	_, err := pool.Exec(t.Context(), `
		INSERT INTO stream SELECT 's' || s, 't' || t, 'u' || u, 0, s * 100 + t * 10 + u
		FROM generate_series(1, 3) s, generate_series(1, 3) t, generate_series(1, 9) u;
		INSERT INTO position SELECT 'c' || c, 's' || s, 't' || t, 'u' || u, 1
		FROM generate_series(1, 2) c, generate_series(1, 3) s, generate_series(1, 3) t, generate_series(1, 9) u;
		INSERT INTO parked (consumer, event_id, reason, next_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, body)
		SELECT 'c' || c, gen_random_uuid(), 'gap', 'infinity', 's1', 't' || t, 'x', 'u' || u, 9, 8, now(), '', '', '', '', ''
		FROM generate_series(1, 2) c, generate_series(1, 3) t, generate_series(1, 9) u`)
	if err != nil {
		t.Fatal(err)
	}
	o := testoperator.New(t, pool, schema)
	for topic, want := range map[string][3]int{"": {9, 18, 6}, "t2": {3, 6, 2}, "t9": {}} {
		s, err := o.SubjectStatus(t.Context(), operate.SubjectFilter{Subject: "u5", Topic: topic, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int{len(s.Streams), len(s.Positions), len(s.Parked)}; got != want || s.Empty() != (want == [3]int{}) {
			t.Errorf("topic %q: %v streams, positions, parked; want %v", topic, got, want)
		}
	}
	s, err := o.SubjectStatus(t.Context(), operate.SubjectFilter{Subject: "u5", Limit: 4})
	if err != nil || len(s.Parked) != 4 {
		t.Errorf("%d parked (%v), the limit is 4", len(s.Parked), err)
	}
}

// The backlog doesn't count again what the sweep has found acknowledged.
func TestBacklogStartsAtTheWatermark(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	record := func(topic string) (xid string) {
		t.Helper()
		err := pool.QueryRow(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			VALUES (gen_random_uuid(), 's', $1, 'x', '', 0, 0, now(), '', '') RETURNING xid::text`, topic).Scan(&xid)
		if err != nil {
			t.Fatal(err)
		}
		return xid
	}
	record("acknowledged")
	open := record("open then")
	if _, err := pool.Exec(ctx, "UPDATE outbox_sweep SET mark = $1::text::xid8, seen = pg_snapshot_xmax(pg_current_snapshot()), again = ARRAY[$1::text::xid8]", open); err != nil {
		t.Fatal(err)
	}
	record("new")
	b, err := testoperator.New(t, pool, schema).Backlog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Owed) != 2 || b.Owed[0].Topic != "new" || b.Owed[1].Topic != "open then" || b.Watermark != open {
		t.Errorf("owed %v, watermark %s", b.Owed, b.Watermark)
	}
}

// The report of an event has all that says what it is: attributes, and what operators did with it.
func TestEventStatusShowsWhatTheEventIs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	if _, err := o.EventStatus(ctx, uuid.New()); !errors.Is(err, operate.ErrUnknownEvent) {
		t.Errorf("got %v, want ErrUnknownEvent", err)
	}
	id := uuid.Must(uuid.NewV7())
	_, err := pool.Exec(ctx, `
		INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body)
		VALUES ($1, 's', 't', 'x', 'u', 7, 0, now(), 'application/json', '{"CE_dataschema": "https://s/1", "CE_region": "eu", "h": "v"}', '{}')`, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, "INSERT INTO outbox_rejected (id, topic, reason, next_at) VALUES ($1, 't', 'too large', now())", id); err != nil {
		t.Fatal(err)
	}
	e, err := o.EventStatus(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if e.DataSchema != "https://s/1" || len(e.Extensions) != 1 || e.Extensions["region"] != "eu" || e.Rejected == nil || e.Rejected.Reason != "too large" || e.Discarded != nil {
		t.Errorf("got %+v", e)
	}
	if n, err := o.DiscardRejected(ctx, operate.RejectedFilter{EventID: id}, "nobody needs it"); err != nil || n != 1 {
		t.Fatalf("discarded %d (%v)", n, err)
	}
	e, err = o.EventStatus(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != operate.DiscardedType || e.Rejected != nil || e.Discarded == nil || e.Discarded.Type != "x" || e.Discarded.Reason != "nobody needs it" || e.Discarded.At.IsZero() {
		t.Errorf("after it was discarded: %+v, %+v", e, e.Discarded)
	}
}

func TestSchemasAndNow(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Migrated(t)
	o := testoperator.New(t, pool, "no_such_schema")
	list, err := o.Schemas(t.Context(), 1)
	if err != nil || len(list) != 1 {
		t.Errorf("got %q, %v", list, err)
	}
	if now, err := o.Now(t.Context()); err != nil || now.IsZero() {
		t.Errorf("got %v, %v", now, err)
	}
}

// A configuration or filter that isn't clear is refused, with the full path of the field.
func TestFieldErrors(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	ctx := t.Context()
	count := func(_ int, err error) error { return err }
	_, noPool := operate.New(operate.Config{})
	_, rate := operate.New(operate.Config{Pool: pool, ResendRate: -1})
	_, list := o.RejectedEvents(ctx, operate.RejectedFilter{Limit: -1})
	_, key := o.Sagas(ctx, operate.SagaFilter{})
	_, subject := o.SubjectStatus(ctx, operate.SubjectFilter{})
	for _, c := range []struct {
		err  error
		want string
	}{
		{noPool, "operate.Config.Pool"},
		{rate, "operate.Config.ResendRate"},
		{list, "operate.RejectedFilter.Limit"},
		{key, "operate.SagaFilter.Key"},
		{subject, "operate.SubjectFilter.Subject"},
		{count(o.RetryRejected(ctx, operate.RejectedFilter{})), "operate.RejectedFilter"},
		{count(o.DiscardRejected(ctx, operate.RejectedFilter{All: true, Topic: "t"}, "")), "operate.RejectedFilter"},
		{count(o.RedirectRejected(ctx, operate.RejectedFilter{Topic: "t"}, "t")), "topic"},
		{count(o.RetryWaiting(ctx, operate.WaitingFilter{})), "operate.WaitingFilter"},
		{count(o.DiscardWaiting(ctx, operate.WaitingFilter{Key: "k", Limit: -1})), "operate.WaitingFilter.Limit"},
		{count(o.Resend(ctx, operate.ResendFilter{All: true})), "operate.Config.Broker"},
	} {
		var field *rocketflow.FieldError
		if !errors.As(c.err, &field) || field.Field != c.want {
			t.Errorf("got %v, want an error of %s", c.err, c.want)
		}
	}
}
