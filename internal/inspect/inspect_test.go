package inspect

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Every query can be answered without reading a whole table: where sequential scans are forbidden, none is left.
func TestIndexed(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	args := map[string][]any{
		"Schemas": {5}, "Event": {uuid.NewString()}, "ParkedEvent": {uuid.NewString()},
		"EventConsumers": {uuid.NewString(), "s", "t", "u", int64(1) << 40, 10},
		"Streams":        {"u", "", 10}, "Positions": {"u", "", 10, 10}, "StreamParked": {"u", "", 10},
		"StreamEvents": {"u", []string{"s"}, []string{"t"}, 10},
		"Sweep":        {}, "Owed": {"0", []string{}, 10}, "Parked": {10, 10}, "Armed": {10}, "WaitingForSagas": {10}, "TimeoutsNext": {10}, "TimeoutsOf": {10, "k"},
	}
	// One row, or all of a table that holds few.
	small := []string{"Seq Scan on outbox_sweep", "Seq Scan on consumer", "Seq Scan on pg_namespace"}
	for name, query := range queries.Parse(queriesFile, schema) {
		values, ok := args[name]
		if !ok {
			t.Errorf("no arguments for %s", name)
			continue
		}
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"); err != nil {
				return err
			}
			rows, err := tx.Query(t.Context(), "EXPLAIN "+query, values...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			text := strings.Join(plan, "\n")
			rest := text
			for _, s := range small {
				rest = strings.ReplaceAll(rest, s, "")
			}
			if strings.Contains(rest, "Seq Scan") {
				t.Errorf("%s:\n%s", name, text)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The hops must find a subject in every stream, wherever its source and topic stand in the index.
func TestHops(t *testing.T) {
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
	err = Read(t.Context(), pool, schema, func(r *Reader) error {
		for topic, want := range map[string][3]int{"": {9, 18, 6}, "t2": {3, 6, 2}, "t9": {}} {
			s, err := r.Subject(t.Context(), "u5", topic, 100)
			if err != nil {
				return err
			}
			if got := [3]int{len(s.Streams), len(s.Positions), len(s.Parked)}; got != want {
				t.Errorf("topic %q: %v streams, positions, parked; want %v", topic, got, want)
			}
		}
		s, err := r.Subject(t.Context(), "u5", "", 4)
		if err == nil && len(s.Parked) != 4 {
			t.Errorf("%d parked, the limit is 4", len(s.Parked))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Rows of transactions that the sweep knows to be acked are not looked at again.
func TestBacklogLooksBehindTheSweep(t *testing.T) {
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
	record("looked at")
	open := record("open then")
	if _, err := pool.Exec(ctx, "UPDATE outbox_sweep SET mark = $1::text::xid8, seen = pg_snapshot_xmax(pg_current_snapshot()), again = ARRAY[$1::text::xid8]", open); err != nil {
		t.Fatal(err)
	}
	record("new")
	err := Read(ctx, pool, schema, func(r *Reader) error {
		b, err := r.Backlog(ctx)
		if err == nil && (len(b.Owed) != 2 || b.Owed[0].Topic != "new" || b.Owed[1].Topic != "open then" || b.Mark != open) {
			t.Errorf("owed %v, mark %s", b.Owed, b.Mark)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	err := Read(t.Context(), pool, schema, func(r *Reader) error {
		rows, err := r.Query(t.Context(), "DELETE FROM stream")
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v", err)
	}
	err = Read(t.Context(), pool, schema, func(r *Reader) error {
		_, err := r.Event(t.Context(), uuid.New())
		return err
	})
	if !errors.Is(err, ErrUnknownEvent) {
		t.Errorf("got %v", err)
	}
}

func TestSchemas(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Migrated(t)
	list, err := Schemas(context.Background(), pool, 1)
	if err != nil || len(list) != 1 {
		t.Errorf("got %q, %v", list, err)
	}
}
