package outbox_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/outbox"
)

// The rows of one transaction are read once, however many pages they make.
func TestSweepReadsRowsOfALargeTransactionOnce(t *testing.T) {
	t.Parallel()
	rows := 20_000
	if n, err := strconv.Atoi(os.Getenv("ROCKETFLOW_PAGING_ROWS")); err == nil { // to measure
		rows = n
	}
	b := setup(t, func(c *outbox.Config) {
		c.Path, c.SweepPage, c.DrainRate, c.MaxBacklog = outbox.Relay, rows/100, -1, -1
		c.SweepInterval = 2 * time.Second // each pass counts the rows: on a slow machine there would be many passes
	})
	before := b.touched(t)
	begin := time.Now()
	inner, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = inner.Exec(t.Context(), `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid,
			'bank', 'accounts', 'account.credited', '', 0, 0, clock_timestamp() - interval '1 hour', 'application/json', '{}' FROM generate_series(1, $1::int) i`, rows)
	if err != nil {
		t.Fatal(err)
	}
	var xid string
	if err := inner.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	if err := inner.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all are out", func() bool {
		b.broker.mu.Lock()
		defer b.broker.mu.Unlock()
		return len(b.broker.delivered) >= rows
	})
	t.Logf("%d rows in %v", rows, time.Since(begin))
	poll.Until(t, "the watermark is past them", func() bool {
		var past bool
		return b.pool.QueryRow(t.Context(), "SELECT mark > $1::text::xid8 FROM outbox_sweep", xid).Scan(&past) == nil && past
	})
	// Some for the pages, the loading, and what is counted meanwhile.
	if n := b.touched(t) - before; n > 30*int64(rows) {
		t.Errorf("%d rows were read of %d", n, rows)
	}
}

func (b *bundle) touched(t *testing.T) (n int64) {
	t.Helper()
	err := b.pool.QueryRow(t.Context(), `SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint FROM pg_stat_user_tables
		WHERE schemaname = $1 AND (relname LIKE 'outbox_p%' OR relname = 'outbox_default')`, b.schema).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
