package operate_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// parkMany parks n events for each of the consumers a, b and c, three of which have the same id and time.
func parkMany(t *testing.T, pool *pgxpool.Pool, reason string, n int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous,
			recorded_at, database, timeout_key, timeout_name, content_type, headers, body)
		SELECT c, ('00000000-0000-7000-8000-' || lpad((n / 3)::text, 12, '0'))::uuid, $1, n, 'infinity', 'error ' || n, '2026-01-01'::timestamptz + n / 30 * interval '1 s', 's' || n % 3, 'orders',
			'order.closed', 'u' || n, 0, 0, now(), '', '', '', '', NULL, 'body'
		FROM generate_series(0, $2::bigint - 1) n, unnest(ARRAY['a', 'b', 'c']) c`, reason, n)
	if err != nil {
		t.Fatal(err)
	}
}

// allParked reads all pages of a list, and returns its events, and how many pages were short.
func allParked(t *testing.T, o *operate.Operator, f operate.ParkedPageFilter) (list []operate.ParkedRow, short int) {
	t.Helper()
	for {
		page, err := o.ParkedPage(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, page.Events...)
		if !page.ScannedTo.IsZero() {
			short++
		}
		if f.After = page.Next; f.After == "" {
			return list, short
		}
	}
}

// The pages of a list of parked events have each event once, the longest parked first, whatever they are cut at.
func TestPagesOfParkedEvents(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	const n = 200
	parkMany(t, pool, "retry", n)
	type identity struct{ consumer, id, source string }
	for _, consumer := range []string{"", "b"} {
		for _, limit := range []int{1, 7, 50} {
			seen := map[identity]bool{}
			list, short := allParked(t, o, operate.ParkedPageFilter{Consumer: consumer, Limit: limit})
			for i, e := range list {
				seen[identity{e.Consumer, e.EventID.String(), e.Source}] = true
				if i > 0 && e.At.Before(list[i-1].At) {
					t.Fatalf("%s was parked at %s, before the event that it follows", e.EventID, e.At)
				}
			}
			want := 3 * n
			if consumer != "" {
				want = n
			}
			if len(list) != want || len(seen) != want || short != 0 {
				t.Errorf("pages of %d of consumer %q: %d events, of which %d differ, and %d short pages; want %d", limit, consumer, len(list), len(seen), short, want)
			}
		}
	}
	if list, _ := allParked(t, o, operate.ParkedPageFilter{Dead: true}); len(list) != 0 {
		t.Errorf("%d of them are listed as dead letters", len(list))
	}
	first, err := o.ParkedPage(t.Context(), operate.ParkedPageFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if e := first.Events[0]; e.Type != "order.closed" || e.Topic != "orders" || e.Subject != "u0" || e.Size != 4 || e.Reason != operate.StateRetry || e.LastError != "error 0" || !e.NextAt.IsZero() {
		t.Errorf("got %+v", e)
	}
}

// Parked streams are listed page by page, also those of one consumer, which may have none.
func TestParkedStreamsOfAConsumer(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	_, err := pool.Exec(t.Context(), `
		INSERT INTO parked (consumer, event_id, reason, next_at, source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name, content_type, body)
		SELECT c, gen_random_uuid(), 'gap', 'infinity', 'shop', 'orders', 'order.changed', 's' || n, b + 2, b + 1, now(), '', '', '', '', ''
		FROM unnest(ARRAY['billing', 'stock']) c, generate_series(1, 5) n, generate_series(1, 3) b`)
	if err != nil {
		t.Fatal(err)
	}
	for consumer, want := range map[string]int{"": 10, "billing": 5, "mailing": 0, "stock": 5, "zebra": 0} {
		for _, limit := range []int{1, 2, 5, 50} {
			f := operate.ParkedStreamFilter{Consumer: consumer, Limit: limit}
			seen := map[string]bool{}
			for {
				page, err := o.ParkedStreams(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range page.Streams {
					if seen[v.Consumer+v.Subject] || v.Held != 2 || consumer != "" && v.Consumer != consumer {
						t.Errorf("of %q, by %d: %+v", consumer, limit, v)
					}
					seen[v.Consumer+v.Subject] = true
				}
				if f.After = page.Next; f.After == "" {
					break
				}
			}
			if len(seen) != want {
				t.Errorf("of %q, by %d: %d streams, want %d", consumer, limit, len(seen), want)
			}
		}
	}
}

// A list of few events of many looks at a bounded number for a page, says so, and its next pages find all.
func TestPageOfFewDeadLettersOfMany(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	parkMany(t, pool, "dead", 4000)
	f := operate.ParkedPageFilter{Dead: true, Subject: "u3999"}
	page, err := o.ParkedPage(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Events) != 0 || page.ScannedTo.IsZero() || page.Next == "" {
		t.Errorf("the first page has %d events, and the list has come to %s", len(page.Events), page.ScannedTo)
	}
	if list, short := allParked(t, o, f); len(list) != 3 || short != 2 {
		t.Errorf("got %d events and %d short pages", len(list), short)
	}
	if list, short := allParked(t, o, operate.ParkedPageFilter{Dead: true, Subject: "u3999", Consumer: "b"}); len(list) != 1 || short != 0 {
		t.Errorf("of one consumer: got %d events and %d short pages", len(list), short)
	}
	if list, _ := allParked(t, o, operate.ParkedPageFilter{Dead: true, Error: "error …", Source: "s1", Limit: 500}); len(list) != 3999 {
		t.Errorf("of one kind of errors and one source: got %d events", len(list))
	}
}

// Lists and changes of all consumers go through the pages of the same list: each event once, the longest parked first, up to the limit.
func TestListsOfAllConsumers(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	const n = 2000 // more than one page of all three
	parkMany(t, pool, "dead", n)
	for limit, want := range map[int]int{0: operate.DefaultLimit, 1: 1, 5500: 5500, 10_000: 3 * n} {
		list, err := o.DeadLetters(t.Context(), operate.ParkedFilter{Limit: limit})
		if err != nil || len(list) != want {
			t.Fatalf("limit %d: %d dead letters, %v; want %d", limit, len(list), err, want)
		}
		seen := map[string]bool{}
		for i, l := range list {
			seen[l.Consumer+l.Event.Source+l.Event.ID.String()] = true
			if i > 0 && l.ParkedAt.Before(list[i-1].ParkedAt) {
				t.Fatalf("%s was parked before the one that it follows", l.Event.ID)
			}
		}
		if first := list[0]; len(seen) != want || first.Consumer != "a" || string(first.Event.Body) != "body" || first.Reason != operate.StateDead || first.LastError != "error 0" {
			t.Errorf("limit %d: %d of %d differ; the first is %+v", limit, len(seen), want, first)
		}
	}
	id := uuid.MustParse("00000000-0000-7000-8000-000000000007")
	for want, f := range map[int]operate.ParkedFilter{
		9: {EventID: id}, 3: {EventID: id, Source: "s1"}, 1: {EventID: id, Source: "s1", Consumer: "c"}, 0: {EventID: uuid.New()}, 2: {Subject: "u1999", Limit: 2},
	} {
		if list, err := o.DeadLetters(t.Context(), f); err != nil || len(list) != want {
			t.Errorf("%+v: %d dead letters, %v; want %d", f, len(list), err, want)
		}
	}
	if list, err := o.ParkedEvents(t.Context(), operate.ParkedFilter{}); err != nil || len(list) != 0 {
		t.Errorf("%d dead letters are listed as parked events: %v", len(list), err)
	}
	if retried, err := o.RetryDeadLetters(t.Context(), operate.ParkedFilter{Subject: "u1999"}); err != nil || retried != 3 {
		t.Errorf("retried %d: %v", retried, err)
	}
	first, err := o.DeadLetters(t.Context(), operate.ParkedFilter{Limit: 1})
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	if discarded, err := o.DiscardDeadLetters(t.Context(), operate.ParkedFilter{All: true, Limit: 450}); err != nil || discarded != 450 {
		t.Errorf("discarded %d: %v", discarded, err)
	}
	var left int
	var digest int64
	e := first[0].Event
	err = pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM parked WHERE reason = 'dead'), digest FROM inbox WHERE consumer = $1 AND event_id = $2 AND source = $3`,
		first[0].Consumer, e.ID, e.Source).Scan(&left, &digest)
	if err != nil || left != 3*n-3-450 || digest != stored.Digest(e) {
		t.Errorf("%d are left, and a discarded one has the digest %d, want %d: %v", left, digest, stored.Digest(e), err)
	}
}
