package outbox

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/pgtest"
)

type noBroker struct{ Broker }

func (noBroker) OpenTransactor(context.Context, string, broker.Checker) (broker.Transactor, error) {
	return nil, nil
}

// Days whose events are delivered go when their time has come; a day that still owes one stays.
func TestRetention(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := pgtest.Migrated(t)
	o, err := New(Config{Pool: pool, Broker: noBroker{}, Source: "s", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := o.retain(ctx, now); err != nil {
		t.Fatal(err)
	}
	insert := func(day int, acked bool) {
		id := uuid.Must(uuid.NewV7())
		ms := now.AddDate(0, 0, day).UnixMilli()
		for i := range 6 {
			id[i] = byte(ms >> (40 - 8*i))
		}
		if _, err := pool.Exec(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			VALUES ($1, 's', 't', 'y', '', 0, 0, now(), '', '')`, id); err != nil {
			t.Fatal(err)
		}
		if acked {
			if _, err := pool.Exec(ctx, "INSERT INTO outbox_ack VALUES ($1)", id); err != nil {
				t.Fatal(err)
			}
		}
	}
	insert(0, true)
	insert(1, true)
	insert(1, false) // owed
	insert(2, true)

	if err := o.retain(ctx, now.AddDate(0, 0, 20)); err != nil {
		t.Fatal(err)
	}
	left := func(table string) (n int) {
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if events, acks := left("outbox"), left("outbox_ack"); events != 2 || acks != 1 {
		t.Errorf("%d events and %d acks are left, want the 2 events of the day that owes one, and its ack", events, acks)
	}
	var names []string
	rows, err := pool.Query(ctx, "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relname ~ '^outbox_p' ORDER BY 1", schema)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	today := "outbox_p" + now.UTC().Format("20060102")
	if slices.Contains(names, today) || !slices.Contains(names, "outbox_p"+now.UTC().AddDate(0, 0, 27).Format("20060102")) {
		t.Errorf("partitions %v", names)
	}
}
