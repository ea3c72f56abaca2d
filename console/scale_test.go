package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testconsole"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

const (
	manyRows    = 60_000 // of each large table
	manyStreams = 10_000

	// maxRead is the maximum number of rows that a statement of a page reads: a list looks at 5,000, and counts end at 10,000.
	maxRead = 5_000 + 10_000
)

// readsMore are the statements that read more, by how many rows.
var readsMore = map[string]float64{
	"ParkedPage":       5_000,                        // of each of two consumers
	"DeadLetterGroups": operate.MaxGrouped,           // of each of two consumers
	"ParkedGroups":     operate.MaxGrouped,           // of each of two consumers
	"ParkedStreams":    50 * operate.MaxBehind,       // behind each stream of the page
	"Consumers":        operate.MaxOverviewCount,     // parked events of one consumer, dead letters of another
	"WaitingBySaga":    operate.MaxOverviewCount,     // those that failed or expired, and others
	"RejectedEvents":   operate.MaxOverviewCount,     // 5,000, and the event of each
	"OwedByTopic":      2 * operate.MaxOverviewCount, // rejected events, with their acknowledgements, which they don't have
}

// wantedRows returns how many rows each large table has: ROCKETFLOW_ROWS.
// Defaults to manyRows.
func wantedRows(t testing.TB) int {
	t.Helper()
	text := os.Getenv("ROCKETFLOW_ROWS")
	if text == "" {
		return manyRows
	}
	rows, err := strconv.Atoi(text)
	if err != nil || rows < 1 {
		t.Fatalf("ROCKETFLOW_ROWS=%q: want a number of rows", text)
	}
	return rows
}

// large makes a service with rows in each of the large tables.
func large(t testing.TB, rows int) *testconsole.Service {
	t.Helper()
	service := testconsole.New(t, "shop")
	const id = `(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid`
	service.Exec(t, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		SELECT `+id+`, 'shop', 'orders', 'order.t' || n % 50, 's' || n % $2::bigint, 1700000000000000 + n, 0, now() - n * interval '1 ms', 'application/json', '{"cents":1}'
		FROM generate_series(1, $1::bigint) n`, rows, manyStreams)
	service.Exec(t, `INSERT INTO stream SELECT 'shop', 'orders', 's' || n, 0, 1700000000000000 + n FROM generate_series(0, $1::bigint - 1) n`, manyStreams)
	service.Exec(t, `INSERT INTO outbox_ack (id, path) SELECT `+id+`, 1 FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, `INSERT INTO inbox (event_id, consumer, source) SELECT `+id+`, 'mailing', 'shop' FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision, finished_at)
		SELECT 'cart', 'c' || n, 1, 's' || n % 2, '{}', 1, CASE WHEN n % 2 = 0 THEN now() - n * interval '1 s' END FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, `INSERT INTO saga_history (name, key, revision, from_state, to_state, cause_type) SELECT 'cart', 'c' || n, 1, '', 's' || n % 2, 'saga.begin' FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		SELECT 'cart/c' || n, 'deadline', gen_random_uuid(), now() + n * interval '1 s', now() + interval '1 d', 'shop', 'timeouts', 'd', 'c', 'application/json', '{}'
		FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, `INSERT INTO timeout_history (ended, key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
		SELECT `+id+`, 'cart/c' || n % 10, 'deadline', ('01234567-89ab-7def-8123-' || lpad(n::text, 12, '0'))::uuid, now(), now(), 'timeouts', 'd', 'c' || n % 10, 'fired' FROM generate_series(1, $1::bigint) n`, rows)
	service.Letters(t, rows)
	service.Exec(t, `INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, headers, body)
		SELECT 'billing', gen_random_uuid(), 'retry', 1, now() + interval '1 h', 'no answer', now() - n * interval '1 ms', 'shop', 'orders', 'order.changed', 'p' || n % $2::bigint,
			n + 1, n, now(), '', '', '', 'application/json', NULL, '{}'
		FROM generate_series(1, $1::bigint) n`, rows, manyStreams)
	service.Exec(t, `INSERT INTO audit (operation, actor, role, action, denied, reason, filter, changed, ids, names)
		SELECT gen_random_uuid(), 'ann', 'ann', 'dead_letters.retry', false, '', '{}', 3, '{}', ARRAY['a' || n, 'b' || n % 1000, gen_random_uuid()::text] FROM generate_series(1, $1::bigint) n`, rows)
	// Some of the acknowledged events are owed and rejected instead.
	service.Exec(t, `DELETE FROM outbox_ack WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT $1::bigint)`, rows/2)
	service.Exec(t, `INSERT INTO outbox_rejected (id, topic, reason, next_at) SELECT id, topic, 'no such topic', 'infinity' FROM outbox ORDER BY id LIMIT $1::bigint`, rows/2)
	service.Exec(t, `INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, changed_at, event_id, source, topic, type, subject, sequence, previous, recorded_at,
			database, content_type, body)
		SELECT 'cart', 'c' || n, CASE n % 4 WHEN 0 THEN 'failed' ELSE 'waiting' END, true, 's1', 'infinity', now(), now() - n * interval '1 ms', gen_random_uuid(), 'shop', 'payments',
			'payment.received', 'c' || n, 0, 0, now(), '', 'application/json', '{}'
		FROM generate_series(1, $1::bigint) n`, rows)
	service.Exec(t, "UPDATE outbox_sweep SET mark = pg_current_xact_id(), seen = pg_current_xact_id()")
	service.Exec(t, "ANALYZE outbox, outbox_ack, inbox, saga, saga_history, timeout, timeout_history, parked, stream, audit, outbox_rejected, saga_waiting")
	return service
}

func largePages(s *testconsole.Service) []string {
	return append(pages(s), "events?subject=s77", "events?type=nothing", "events?type=order.t7", "sagas?name=cart&state=s1", "sagas?state=nothing",
		"dead?service=order&consumer=mailing&error=mailbox+%E2%80%A6+is+full", "dead?service=order&consumer=mailing", "dead?service=order&subject=s77",
		"dead?service=order&type=nothing", "streams?consumer=billing", "streams?consumer=mailing", "act/retry?service=order&consumer=mailing",
		"act/discard?service=order&type=nothing", "act/discard?service=order", "audit?id=a77", "audit?id=b77", "audit?id=nothing", "audit?actor=ann",
		"timeouts?key=cart/c7", "why?id=cart/c7", "why?id=c7", "why?id=01234567-89ab-7def-8123-000000000007",
		"audit?operation=01234567-89ab-7def-8123-456789abcdef",
		"rejected?topic=orders", "rejected?topic=nothing", "rejected?type=nothing", "rejected?subject=s77", "act/discard-rejected?service=order", "act/retry-rejected?service=order&type=nothing",
		"waiting?saga=cart", "waiting?saga=nothing", "waiting?key=c77&status=any", "waiting?status=waiting", "waiting?status=retry", "act/retry-waiting?service=order",
		"act/retry-waiting?service=order&saga=nothing", "act/apply-event?service=order&saga=cart&key=c77")
}

// statements keeps the statements that a pool's connections run, each with its arguments once.
type statements struct {
	mu    sync.Mutex
	known map[string]bool
	list  []pgx.TraceQueryStartData
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := fmt.Sprintf("%q", append([]any{q.SQL}, q.Args...)); strings.HasPrefix(q.SQL, "-- name: ") && !s.known[key] {
		s.known[key] = true
		s.list = append(s.list, q)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) take() []pgx.TraceQueryStartData {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// plan is a node of what EXPLAIN (ANALYZE, FORMAT JSON) prints.
type plan struct {
	NodeType string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Rows     float64 `json:"Actual Rows"` // of each loop
	Removed  float64 `json:"Rows Removed by Filter"`
	Rechecks float64 `json:"Rows Removed by Index Recheck"`
	Loops    float64 `json:"Actual Loops"`
	Hit      int     `json:"Shared Hit Blocks"`
	Fetched  int     `json:"Shared Read Blocks"`
	Plans    []plan
}

// read counts the rows of tables that a plan has read.
func (p plan) read() (rows float64) {
	if p.Relation != "" {
		rows = (p.Rows + p.Removed + p.Rechecks) * p.Loops
	}
	for _, child := range p.Plans {
		rows += child.read()
	}
	return rows
}

// What a page reads is bounded, however many rows the large tables have. Postgres says how many rows each statement reads.
func TestPagesOfLargeTables(t *testing.T) {
	t.Parallel()
	service := large(t, wantedRows(t))
	traced := statements{known: map[string]bool{}}
	config := service.Pool.Config()
	config.ConnConfig.Tracer = &traced
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	service.Operator = testoperator.Of(t, operate.Config{Pool: pool, Schema: service.Schema, Broker: service.Sent})
	s := serve(t, console.Config{}, service)
	seen := 0
	for _, page := range largePages(service) {
		if status, text, _ := s.get(page); status != http.StatusOK {
			t.Errorf("%s: %d %s", page, status, text)
		}
		for _, q := range traced.take() {
			seen++
			var text string
			if err := service.Pool.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+q.SQL, q.Args...).Scan(&text); err != nil {
				t.Fatalf("explain %s: %v", q.SQL, err)
			}
			var plans []struct{ Plan plan }
			if err := json.Unmarshal([]byte(text), &plans); err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(strings.TrimPrefix(q.SQL, "-- name: "), "\n")
			read := plans[0].Plan.read()
			t.Logf("%6.0f rows  %s  %s", read, name, page)
			most := maxRead + readsMore[name]
			if name == "ParkedStreams" && page == "streams?consumer=mailing" {
				most = 10 // it has none
				if blocks := plans[0].Plan.Hit + plans[0].Plan.Fetched; blocks > 100 {
					t.Errorf("%s: statement %s passes over events without order: it reads %d blocks:\n%s", page, name, blocks, text)
				}
			}
			if read > most {
				t.Errorf("%s: statement %s reads %.0f rows:\n%s", page, name, read, text)
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d statements were seen", seen)
	}
}

// BenchmarkPagesOfLargeTables measures each page, and what the overview reads, with ROCKETFLOW_ROWS rows in each of the large tables.
func BenchmarkPagesOfLargeTables(b *testing.B) {
	service := large(b, wantedRows(b))
	s := serve(b, console.Config{}, service)
	for _, page := range largePages(service) {
		b.Run("page="+page, func(b *testing.B) {
			for b.Loop() {
				console.ForgetReads(s.console)
				if status, text, _ := s.get(page); status != http.StatusOK {
					b.Fatalf("%d %s", status, text)
				}
			}
		})
	}
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			if _, err := service.Operator.Overview(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
