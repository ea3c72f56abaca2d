package operate_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// waitMany has n events wait for sagas a and b: each fourth has failed, and each fourth has expired, the later the longer ago, several at
// once.
func waitMany(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, changed_at, event_id, source, topic, type, subject, sequence, previous,
			recorded_at, database, content_type, body)
		SELECT CASE n % 3 WHEN 0 THEN 'a' ELSE 'b' END, 'k' || n % 50, (ARRAY['waiting', 'retry', 'failed', 'expired'])[n % 4 + 1], true, 's', 'infinity', now(),
			now() - n / 30 * interval '1 s', gen_random_uuid(), 'shop', 'payments', 'paid', 'k', 0, 0, now(), '', 'application/json', 'body'
		FROM generate_series(0, $1::bigint - 1) n`, n)
	if err != nil {
		t.Fatal(err)
	}
}

// The pages of waiting events have each event once, whatever they are cut at.
func TestPagesOfWaitingEvents(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	const n = 600
	waitMany(t, pool, n)
	all := func(f operate.WaitingPageFilter) (list []operate.WaitingRow, partial int) {
		t.Helper()
		for {
			page, err := o.WaitingPage(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, page.Events...)
			if page.Partial {
				partial++
			}
			if f.After = page.Next; f.After == "" {
				return list, partial
			}
		}
	}
	for _, c := range []struct {
		f    operate.WaitingPageFilter
		want int
	}{
		{operate.WaitingPageFilter{}, n}, {operate.WaitingPageFilter{Stopped: true}, n / 2}, {operate.WaitingPageFilter{Saga: "a"}, n / 3},
		{operate.WaitingPageFilter{Status: operate.WaitingForRetry}, n / 4}, {operate.WaitingPageFilter{Stopped: true, Status: operate.WaitingFailed}, n / 4},
		{operate.WaitingPageFilter{Key: "k7"}, n / 50}, {operate.WaitingPageFilter{Key: "k7", Saga: "a"}, n / 150}, {operate.WaitingPageFilter{Key: "k6", Stopped: true}, n / 100},
		{operate.WaitingPageFilter{Saga: "nothing"}, 0},
	} {
		for _, limit := range []int{1, 7, 50} {
			c.f.Limit = limit
			seen := map[int64]bool{}
			list, partial := all(c.f)
			for i, e := range list {
				seen[e.ID] = true
				if i == 0 {
					continue
				}
				if before := list[i-1]; c.f.Stopped && c.f.Key == "" && e.ChangedAt.Before(before.ChangedAt) || (!c.f.Stopped || c.f.Key != "") && e.ID < before.ID {
					t.Fatalf("%+v: %d follows %d", c.f, e.ID, before.ID)
				}
			}
			if len(list) != c.want || len(seen) != c.want || partial != 0 {
				t.Errorf("%+v: %d events, of which %d differ, and %d partial pages; want %d", c.f, len(list), len(seen), partial, c.want)
			}
		}
	}
	page, err := o.WaitingPage(t.Context(), operate.WaitingPageFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if e := page.Events[0]; e.Saga != "a" || e.Key != "k0" || e.Status != operate.WaitingForState || e.State != "s" || e.Type != "paid" || e.Size != 4 || !e.NextAt.IsZero() || e.ArrivedAt.IsZero() {
		t.Errorf("got %+v", e)
	}

	// Few of many: a page looks at a bounded number.
	waitMany(t, pool, 11_000)
	if list, partial := all(operate.WaitingPageFilter{Saga: "nothing"}); len(list) != 0 || partial != 2 {
		t.Errorf("%d events, %d partial pages", len(list), partial)
	}
	b, err := o.Backlog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range b.Waiting {
		if want := int64(11_600 / 4); w.Saga == "b" && (w.Events < want*6/10 || w.Events > want*7/10) {
			t.Errorf("%s of b: %d", w.Status, w.Events)
		}
	}
}

// An overview counts dead letters and parked events to its limit, and events that failed and expired however many wait.
func TestCountsOfAnOverviewEnd(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	if _, err := pool.Exec(t.Context(), "INSERT INTO consumer (name, group_name) VALUES ('a', 'a'), ('b', 'b'), ('z', 'z')"); err != nil {
		t.Fatal(err)
	}
	parkMany(t, pool, "dead", operate.MaxOverviewCount+10)
	if _, err := pool.Exec(t.Context(), "UPDATE parked SET reason = 'retry' WHERE consumer = 'b' AND subject IN ('u1', 'u2', 'u3'); DELETE FROM parked WHERE consumer = 'b' AND reason = 'dead'"); err != nil {
		t.Fatal(err)
	}
	_, err := pool.Exec(t.Context(), `INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, body)
		SELECT 's', 'k', CASE WHEN n > $1::bigint THEN 'failed' ELSE 'waiting' END, true, 's', 'infinity', now(), gen_random_uuid(), '', '', '', '', 0, 0, now(), '', '', ''
		FROM generate_series(1, $1::bigint + 3) n`, operate.MaxOverviewCount+10)
	if err != nil {
		t.Fatal(err)
	}
	v, err := o.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string][2]int64{}
	for _, c := range v.Consumers {
		counts[c.Name] = [2]int64{c.Parked, c.Dead}
	}
	if counts["a"] != [2]int64{0, operate.MaxOverviewCount} || counts["b"] != [2]int64{3, 0} || counts["z"] != [2]int64{} {
		t.Errorf("got %v", counts)
	}
	if len(v.Waiting) != 2 || v.Waiting[0].Status != operate.WaitingFailed || v.Waiting[0].Events != 3 || v.Waiting[1].Events != operate.MaxOverviewCount {
		t.Errorf("got %+v", v.Waiting)
	}
	b, err := o.Backlog(t.Context())
	if err != nil || len(b.Parked) != 2 || b.Parked[0].Events != operate.MaxOverviewCount+10 || b.Waiting[1].Events != operate.MaxOverviewCount+10 {
		t.Errorf("the backlog counts further: %+v, %v", b, err)
	}
}
