package outbox

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/expire"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/test/testdb"
)

type noBroker struct{ Broker }

func (noBroker) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return nil, nil
}

// Days whose events are delivered go when their time has come; a day that still owes one stays.
func TestAcknowledgedDaysAreDropped(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema := testdb.Migrated(t)
	o, err := New(Config{Pool: pool, Broker: noBroker{}, Source: "s", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := (&retainer{outbox: o}).pass(ctx, now); err != nil {
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

	if err := (&retainer{outbox: o}).pass(ctx, now.AddDate(0, 0, 20)); err != nil {
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

// expiry is an outbox that isn't started, for its retention.
type expiry struct {
	*Outbox
	t    *testing.T
	pool *pgxpool.Pool
}

func newExpiry(t *testing.T) *expiry {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	o, err := New(Config{Pool: pool, Broker: noBroker{}, Source: "s", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	return &expiry{o, t, pool}
}

func (x *expiry) exec(sql string, args ...any) {
	x.t.Helper()
	if _, err := x.pool.Exec(x.t.Context(), sql, args...); err != nil {
		x.t.Fatalf("%s: %v", sql, err)
	}
}

// at runs retention as of an instant, even if another process ran it less than an hour before.
func (x *expiry) at(now time.Time) int64 {
	x.t.Helper()
	x.exec("UPDATE outbox_retention SET begun_at = '-infinity'")
	rows, err := (&retainer{outbox: x.Outbox}).expire(x.t.Context(), now)
	if err != nil {
		x.t.Fatal(err)
	}
	return rows
}

func (x *expiry) subjects() (left []string) {
	x.t.Helper()
	if err := x.pool.QueryRow(x.t.Context(), "SELECT coalesce(array_agg(subject ORDER BY subject), '{}') FROM stream").Scan(&left); err != nil {
		x.t.Fatal(err)
	}
	return left
}

// Idle streams are forgotten; not those that are in use, or of which an event is kept.
func TestIdleStreamsExpire(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx, now := t.Context(), time.Now()
	old := now.Add(-x.config.StreamRetention - time.Hour).UnixMicro()
	x.exec("INSERT INTO stream SELECT 's', 't', 'idle' || i, 0, $1::bigint + i FROM generate_series(1, 5000) AS i", old)
	for subject, sequence := range map[string]int64{"kept": old, "locked": old, "moved": old, "young": now.UnixMicro()} {
		x.exec("INSERT INTO stream VALUES ('s', 't', $1, 0, $2)", subject, sequence)
	}
	x.exec(`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		VALUES (gen_random_uuid(), 's', 't', 'y', 'kept', $1, 0, now() - interval '40 days', '', '')`, old) // and owed
	publisher, err := x.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = publisher.Rollback(ctx) }()
	if _, err := publisher.Exec(ctx, "UPDATE stream SET previous = sequence, sequence = $1 WHERE subject = 'moved'", now.UnixMicro()); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.Exec(ctx, "SELECT FROM stream WHERE subject = 'locked' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	if n := x.at(now); n != 5000 { // and waits for no lock
		t.Errorf("%d rows expired", n)
	}
	if left := x.subjects(); !slices.Equal(left, []string{"kept", "locked", "moved", "young"}) {
		t.Errorf("left are %v", left)
	}
	if err := publisher.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if rows, err := (&retainer{outbox: x.Outbox}).expire(ctx, now); err != nil || rows != 0 {
		t.Errorf("%d more expired within the hour (%v)", rows, err)
	}
	x.at(now)
	if left := x.subjects(); !slices.Equal(left, []string{"kept", "moved", "young"}) {
		t.Errorf("left are %v", left)
	}
	var floor int64
	if err := x.pool.QueryRow(ctx, "SELECT stream_floor FROM outbox_retention").Scan(&floor); err != nil || floor != old+5000 {
		t.Errorf("the floor is %d, want %d (%v)", floor, old+5000, err)
	}
}

// While idle streams are forgotten under its hands, what publishes to them goes on: sequences rise, and each event follows
// the one before or begins anew.
func TestStreamsInUseKeepTheirChain(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx, old := t.Context(), time.Now().Add(-time.Hour).UnixMicro()
	const streams = 300
	x.exec("INSERT INTO stream SELECT 's', 't', i::text, 0, $1 FROM generate_series(1, $2::int) AS i", old, streams)
	var group, forgetting errgroup.Group
	for range 3 {
		group.Go(func() error {
			for i := range streams {
				var id, sequence, previous, at, synced any
				err := testdb.Retry(func() error {
					return x.pool.QueryRow(ctx, x.queries.Get("RecordOne"), "s", uuid.Must(uuid.NewV7()).String(), "t", "y", strconv.Itoa(i+1), "", nil, []byte("b"), nil, nil).
						Scan(&id, &sequence, &previous, &at, &synced)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	forgotten := int64(0)
	forgetting.Go(func() error {
		// A row at a time, from the last to meet those who come from the first.
		one := strings.Replace(x.queries.Get("ExpireStreams"), "s.sequence < $3::bigint", "s.sequence < $3::bigint AND s.subject = $4", 1)
		for i := streams; i > 0; i-- {
			n, err := expire.Walk(ctx, x.pool, x.config.Schema, "stream", one, old+1, strconv.Itoa(i))
			if forgotten += n; err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(group.Wait(), forgetting.Wait()); err != nil {
		t.Fatal(err)
	}
	var events, anew, wrong int64
	if err := x.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE previous = 0),
			count(*) FILTER (WHERE sequence <= before OR previous <> before AND (previous <> 0 OR before <> $1))
		FROM (SELECT *, lag(sequence, 1, $1) OVER (PARTITION BY subject ORDER BY sequence) AS before FROM outbox) o`, old).Scan(&events, &anew, &wrong); err != nil {
		t.Fatal(err)
	}
	if events != 3*streams || wrong != 0 || forgotten == 0 || anew != forgotten {
		t.Errorf("of %d events %d are not linked; %d began anew, %d streams were forgotten", events, wrong, anew, forgotten)
	}
}

// A clock that was set back by more than a stream is kept doesn't take its sequence back: whoever handled what is forgotten
// would take what comes for duplicates.
func TestSequencesRiseThoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ahead := time.Now().AddDate(0, 3, 0)
	x.exec("INSERT INTO stream VALUES ('s', 't', 'a', 0, $1), ('s', 't', 'b', 0, $1)", ahead.UnixMicro())
	if n := x.at(ahead.AddDate(0, 3, 0)); n != 2 {
		t.Fatalf("%d streams were forgotten", n)
	}
	var id, sequence, previous, at, synced any
	err := x.pool.QueryRow(t.Context(), x.queries.Get("RecordOne"), "s", uuid.Must(uuid.NewV7()).String(), "t", "y", "a", "", nil, []byte("b"), nil, nil).
		Scan(&id, &sequence, &previous, &at, &synced)
	if err != nil || sequence.(int64) <= ahead.UnixMicro() || previous.(int64) != 0 {
		t.Errorf("sequence %v after %v (%v)", sequence, previous, err)
	}
	two := []uuid.UUID{uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())}
	twice := func(s string) []string { return []string{s, s} }
	rows, err := x.pool.Query(t.Context(), x.queries.Get("Record"), "s", texts(two), twice("t"), twice("y"), twice("b"), []bool{true, true},
		twice(""), []*string{nil, nil}, [][]byte{[]byte("b"), []byte("b")}, []*string{nil, nil}, []*string{nil, nil})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &sequence, &previous, &at, &synced}, func() error {
		if n++; sequence.(int64) <= ahead.UnixMicro() {
			t.Errorf("sequence %v after %v", sequence, previous)
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d events recorded (%v)", n, err)
	}
}

// What lies in the default partitions goes too, when it is delivered and old.
func TestDefaultPartitionsExpire(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	now := time.Now()
	id := func(recorded time.Time, acked *time.Time) uuid.UUID {
		id := uuid.New() // of no day
		x.exec(`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			VALUES ($1, 's', 't', 'y', '', 0, 0, $2, '', '')`, id, recorded)
		if acked != nil {
			x.exec("INSERT INTO outbox_ack VALUES ($1, $2)", id, *acked)
		}
		return id
	}
	old := now.Add(-x.config.Retention - time.Hour)
	id(old, &old)
	id(old, &now) // its ack goes when that is old as well
	owed := id(old, nil)
	young := id(now, &now)
	x.exec("INSERT INTO outbox_ack VALUES (gen_random_uuid(), $1)", old) // that came after its event had gone
	x.at(now)
	var events []uuid.UUID
	var acks int
	err := x.pool.QueryRow(t.Context(), "SELECT (SELECT array_agg(id) FROM outbox), (SELECT count(*) FROM outbox_ack)").Scan(&events, &acks)
	if err != nil || len(events) != 2 || !slices.Contains(events, owed) || !slices.Contains(events, young) || acks != 2 {
		t.Errorf("left are events %v and %d acks (%v), want %s, which is owed, and %s", events, acks, err, owed, young)
	}
}

// Acks have a partition for a day whose events have none: it goes when they have gone.
func TestAcknowledgementsWithoutEventsExpire(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	x.config.TimeoutHistoryRetention = 365 * 24 * time.Hour // drops no partition of another table
	ctx, now := t.Context(), time.Now()
	if _, err := partition.Ensure(ctx, x.pool, x.table("outbox_ack"), now, 0); err != nil {
		t.Fatal(err)
	}
	x.exec(`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		VALUES ($1, 's', 't', 'y', '', 0, 0, now(), '', '')`, uuid.Must(uuid.NewV7()))
	later := now.AddDate(0, 0, 20)
	if dropped, err := x.dropPartitions(ctx, later); err != nil || len(dropped) != 0 {
		t.Fatalf("dropped %v (%v)", dropped, err)
	}
	x.exec("DELETE FROM outbox")
	if dropped, err := x.dropPartitions(ctx, later); err != nil || len(dropped) != 1 {
		t.Fatalf("dropped %v (%v)", dropped, err)
	}
}

// An event that becomes visible after a day was looked through keeps it, however long its transaction was open.
func TestRetentionKeepsADayWithLateRows(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx := t.Context()
	if _, err := x.makePartitions(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	late, err := x.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		VALUES ($1, 's', 't', 'y', '', 0, 0, now(), '', '')`, uuid.Must(uuid.NewV7())); err != nil {
		t.Fatal(err)
	}
	days, err := partition.Days(ctx, x.pool, x.table("outbox"))
	if err != nil {
		t.Fatal(err)
	}
	owed, horizon, err := x.hasOwed(ctx, days[0])
	if err != nil || owed {
		t.Fatalf("owed %v, %v", owed, err)
	}
	if err := late.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	dropped, err := partition.Drop(ctx, x.pool, days[:1], func(ctx context.Context, tx pgx.Tx) (bool, error) { return x.hasOwedSince(ctx, tx, days[0], horizon) })
	if err != nil || dropped {
		t.Errorf("dropped: %v, %v", dropped, err)
	}
}

// What operators have changed is forgotten after a year, or as configured, even of a table of many pages; or never.
func TestAuditExpires(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	now, day := time.Now(), 24*time.Hour
	entries := func(n int, at time.Time) {
		x.exec(`INSERT INTO audit (operation, at, actor, role, action, denied, reason, filter, changed, ids, names, after)
			SELECT gen_random_uuid(), $1, 'maria', 'r', 'pause', i % 2 = 0, repeat('w', 500), '{}', 1, '{}', '{}', '{}' FROM generate_series(1, $2::int) AS i`, at, n)
	}
	left := func() (n int) {
		if err := x.pool.QueryRow(t.Context(), "SELECT count(*) FROM audit").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	entries(2000, now.Add(-366*day))
	entries(3, now.Add(-364*day))
	entries(4, now)
	x.config.AuditRetention = -1
	if n := x.at(now); n != 0 || left() != 2007 {
		t.Errorf("%d rows expired although they are kept", n)
	}
	x.config.AuditRetention = Config{}.withDefaults().AuditRetention
	if n := x.at(now); n != 2000 || left() != 7 {
		t.Errorf("%d rows expired and %d are left, want the 7 that are younger than a year", n, left())
	}
	x.config.AuditRetention = 30 * day
	if n := x.at(now); n != 3 || left() != 4 {
		t.Errorf("%d rows expired and %d are left, want the 4 of this month", n, left())
	}
	var field *rocketflow.FieldError
	if _, err := New(Config{Pool: x.pool, Broker: noBroker{}, Source: "s", AuditRetention: time.Hour}); !errors.As(err, &field) {
		t.Errorf("a retention of an hour: %v", err)
	}
}

// A process that could not expire all tries again, though the hour in which one process does it isn't over; others don't.
func TestExpiryIsRepeatedAfterAFailure(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx, now := t.Context(), time.Now()
	x.exec(`INSERT INTO audit (operation, at, actor, role, action, denied, reason, filter, changed, ids, names, after)
		VALUES (gen_random_uuid(), now() - interval '366 days', 'maria', 'r', 'pause', false, '', '{}', 1, '{}', '{}', '{}')`)
	one, other := &retainer{outbox: x.Outbox}, &retainer{outbox: x.Outbox}
	x.exec("ALTER TABLE stream RENAME TO away")
	if _, err := one.expire(ctx, now); err == nil {
		t.Fatal("rows of a table that is away expired")
	}
	x.exec(`INSERT INTO outbox_discarded (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body, reason, discarded_at)
		VALUES (gen_random_uuid(), 's', 't', 'y', '', 0, 0, now(), '', '', '', now() - interval '1 year')`)
	x.exec("ALTER TABLE away RENAME TO stream")
	if rows, err := other.expire(ctx, now); err != nil || rows != 0 {
		t.Errorf("another process expired %d rows: %v", rows, err)
	}
	if rows, err := one.expire(ctx, now); err != nil || rows != 1 {
		t.Errorf("%d rows expired, want the one that is left: %v", rows, err)
	}
	if rows, err := one.expire(ctx, now); err != nil || rows != 0 || one.unfinished {
		t.Errorf("it was repeated once more: %d, %v", rows, err)
	}
}

// What became of timeouts is forgotten after a week, or as configured: whole days, and what is in the default partition by its age.
func TestHistoryOfTimeoutsExpires(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx, now, day := t.Context(), time.Now(), 24*time.Hour
	table := x.table("timeout_history")
	add := func(age time.Duration, n int) {
		from, _ := table.Day(now.Add(-age)).Bounds()
		x.exec(`INSERT INTO timeout_history (ended, ended_at, key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
			SELECT $1, $2, 'k', 'n', gen_random_uuid(), $2, $2, 't', 'y', '', 'fired' FROM generate_series(1, $3::int)`, from, now.Add(-age), n)
	}
	left := func() (n int) {
		if err := x.pool.QueryRow(ctx, "SELECT count(*) FROM timeout_history").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, age := range []time.Duration{20 * day, 9 * day, 6 * day, 0} {
		if _, err := partition.Ensure(ctx, x.pool, table, now.Add(-age), 0); err != nil {
			t.Fatal(err)
		}
		add(age, 10)
	}
	add(12*day, 3000) // days without a partition
	add(5*day, 4)
	retain := func() (dropped []string, expired int64) {
		dropped, err := x.dropPartitions(ctx, now)
		if err != nil {
			t.Fatal(err)
		}
		return dropped, x.at(now)
	}
	x.config.TimeoutHistoryRetention = 15 * day
	if dropped, expired := retain(); len(dropped) != 1 || expired != 0 || left() != 3034 {
		t.Errorf("after 15 days: dropped %v, %d expired, %d left", dropped, expired, left())
	}
	x.config.TimeoutHistoryRetention = Config{}.withDefaults().TimeoutHistoryRetention
	if dropped, expired := retain(); !slices.Equal(dropped, []string{table.Day(now.Add(-9 * day)).Name}) || expired != 3000 || left() != 24 {
		t.Errorf("after a week: dropped %v, %d expired, %d left", dropped, expired, left())
	}
	if made, err := x.makePartitions(ctx, now.Add(day)); err != nil || !slices.Contains(made, table.Day(now.Add(7*day)).Name) {
		t.Errorf("made %v, %v", made, err)
	}
	var field *rocketflow.FieldError
	if _, err := New(Config{Pool: x.pool, Broker: noBroker{}, Source: "s", TimeoutHistoryRetention: time.Hour}); !errors.As(err, &field) {
		t.Errorf("a retention of an hour: %v", err)
	}
}

// The default of the column by which the history is partitioned is of the day on which the row is written.
func TestHistoryOfTimeoutsGoesToThePartitionOfItsDay(t *testing.T) {
	t.Parallel()
	x := newExpiry(t)
	ctx := t.Context()
	var now time.Time
	if err := x.pool.QueryRow(ctx, "SELECT now()").Scan(&now); err != nil {
		t.Fatal(err)
	}
	if _, err := x.makePartitions(ctx, now); err != nil {
		t.Fatal(err)
	}
	x.exec(`INSERT INTO timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
		SELECT 'k', 'n', gen_random_uuid(), now(), now(), 't', 'y', '', 'fired' FROM generate_series(1, 1000)`)
	var elsewhere int
	var off float64
	err := x.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE tableoid::regclass::text LIKE '%default'),
		max(abs(extract(epoch FROM ended_at) * 1000 - ('x' || substr(replace(ended::text, '-', ''), 1, 12))::bit(48)::bigint))::float8 FROM timeout_history`).Scan(&elsewhere, &off)
	if err != nil || elsewhere != 0 || off > 1000 {
		t.Errorf("%d rows in the default partition, times off by %v ms (%v)", elsewhere, off, err)
	}
}
