package operate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// end is a row of the history of timeouts.
type end struct {
	key, name, kind, subject, outcome string
	epoch, next                       uuid.UUID
	armed, due, ended                 time.Duration // from now
}

func addEnds(t *testing.T, pool *pgxpool.Pool, list ...end) {
	t.Helper()
	for _, e := range list {
		var next *uuid.UUID
		if e.next != uuid.Nil {
			next = &e.next
		}
		now := time.Now()
		_, err := pool.Exec(t.Context(), `INSERT INTO timeout_history (key, name, epoch, armed_at, due_at, ended_at, topic, type, subject, outcome, next_epoch)
			VALUES ($1, $2, $3, $4, $5, $6, 'timeouts', $7, $8, $9, $10)`,
			e.key, e.name, e.epoch, now.Add(e.armed), now.Add(e.due), now.Add(e.ended), e.kind, e.subject, e.outcome, next)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newEpochs(n int) (list []uuid.UUID) {
	for range n {
		list = append(list, uuid.Must(uuid.NewV7()))
	}
	return list
}

// The time line of a key says of each of its timeouts when it was armed, for when, and what became of it; that of an event which a timeout
// had says it of this arming, and which event followed.
func TestWhySaysWhatBecameOfTimeouts(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	why := explainer(t, testoperator.New(t, pool, schema))
	ids := newEpochs(8)
	addEnds(t, pool,
		end{"o-1", "payment", "payment.late", "o-1", "moved", ids[0], ids[1], -time.Hour, -30 * time.Minute, -50 * time.Minute},
		end{"o-1", "payment", "payment.late", "o-1", "replaced", ids[1], ids[2], -50 * time.Minute, -20 * time.Minute, -40 * time.Minute},
		end{"o-1", "payment", "payment.late", "o-1", "fired", ids[2], uuid.Nil, -40 * time.Minute, -10 * time.Minute, -10*time.Minute + 120*time.Millisecond},
		end{"o-2", "payment", "payment.late", "o-2", "disarmed", ids[3], uuid.Nil, -time.Hour, time.Hour, -time.Minute},
		end{"o-3", "payment", "payment.late", "o-3", "settled", ids[4], uuid.Nil, -time.Hour, -time.Minute, -time.Second},
		end{"job", "daily", "run", "", "fired", ids[5], ids[6], -time.Hour, -time.Minute, -time.Minute + time.Second},
		end{"customer", "dunning", "dun", "c-9", "fired", ids[7], uuid.Nil, -time.Hour, -time.Minute, -time.Minute},
	)
	if _, err := pool.Exec(t.Context(), `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		VALUES ('job', 'daily', $1, '2035-05-06 07:08:09+00', now(), 'shop', 'timeouts', 'run', '', '', '')`, ids[6]); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		lines   []string // in order
		verdict string
		command string
	}{
		"o-1": {[]string{
			"timeout payment of o-1: armed for", "timeout payment of o-1: moved from", "timeout payment of o-1: armed again instead of for",
			"timeout payment of o-1: fired, 120ms after it was due",
		}, "timeout payment of o-1 fired, 120ms after it was due", ""},
		ids[0].String(): {[]string{"armed for", "moved from"}, "was moved before it fired: this event has no effect", "rocketflow why " + ids[1].String()},
		ids[1].String(): {[]string{"armed for", "armed again"}, "was armed again before it fired: this event has no effect", "rocketflow why " + ids[2].String()},
		ids[2].String(): {[]string{"armed for", "fired, 120ms after it was due"}, "fired, 120ms after it was due", ""},
		"o-2":           {[]string{"armed for", "disarmed, 1h1m before it was due"}, "timeout payment of o-2 was disarmed", ""},
		ids[3].String(): {[]string{"armed for", "disarmed, 1h1m before it was due"}, "timeout payment of o-2 was disarmed: this event has no effect", ""},
		"o-3":           {[]string{"armed for", "ended without firing"}, "timeout payment of o-3 has not fired", ""},
		ids[4].String(): {[]string{"armed for", "ended without firing"}, "timeout payment of o-3 has not fired", ""},
		"job":           {[]string{"armed for", "and armed again for 2035-05-06T07:08:09.000Z", "armed for 2035"}, "timeout daily of job", "rocketflow inspect timeouts job"},
		ids[5].String(): {[]string{"armed for", "fired, 1s after it was due, and armed again"}, "timeout daily of job fired", "rocketflow why " + ids[6].String()},
		ids[6].String(): {[]string{"timeout daily of job: armed for 2035"}, "timeout daily of job", "rocketflow inspect timeouts job"},
		"c-9":           {[]string{"timeout dunning of customer: armed for", "timeout dunning of customer: fired"}, "timeout dunning of customer fired", ""},
	} {
		x := why(id)
		matches := len(x.Timeline) == len(want.lines)
		for i := range min(len(x.Timeline), len(want.lines)) {
			matches = matches && strings.Contains(x.Timeline[i].Text, want.lines[i]) && !x.Timeline[i].At.IsZero()
		}
		if !matches {
			t.Errorf("why %s: want lines %q; got %+v", id, want.lines, x.Timeline)
		}
		v := x.Verdict
		if !strings.Contains(v.What+v.For, want.verdict) || !strings.Contains(v.Command, want.command) || (v.Command == "") != (want.command == "") {
			t.Errorf("why %s: verdict %+v", id, v)
		}
		if isEvent := uuid.Validate(id) == nil; isEvent != (x.Kind == operate.ExplainsEvent) || isEvent && !strings.Contains(x.Title, "of timeout ") {
			t.Errorf("why %s: %s, %q", id, x.Kind, x.Title)
		}
	}
	if x := why("o-1"); !strings.Contains(x.Timeline[1].Text, " to "+why(ids[1].String()).Timeline[0].Text[len("timeout payment of o-1: armed for "):]) {
		t.Errorf("it doesn't say to when it was moved: %+v", x.Timeline)
	}
}

// The deadlines of a saga are named by it, and found by its key, also when the saga is not kept any more.
func TestWhySaysWhatBecameOfDeadlines(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	why := explainer(t, testoperator.New(t, pool, schema))
	ids := newEpochs(2)
	addEnds(t, pool,
		end{"order/4711", "unpaid", "saga.deadline.order", "4711", "disarmed", ids[0], uuid.Nil, -time.Hour, time.Hour, -50 * time.Minute},
		end{"order/4711", "unsent", "saga.deadline.order", "4711", "fired", ids[1], uuid.Nil, -50 * time.Minute, -time.Minute, -time.Minute},
	)
	for _, id := range []string{"4711", "order/4711"} {
		x := why(id)
		if len(x.Timeline) != 4 || !hasLine(x, "the deadline of saga order of 4711 in state unpaid: disarmed") || !hasLine(x, "in state unsent: fired") ||
			x.Verdict.State != operate.VerdictDone {
			t.Errorf("why %s: %+v", id, x)
		}
	}
}

// A key with more ended timeouts than are read says that some are left out, and shows the last ones.
func TestWhyOfManyEndedTimeouts(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	why := explainer(t, testoperator.New(t, pool, schema))
	_, err := pool.Exec(t.Context(), `INSERT INTO timeout_history (ended, ended_at, key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
		SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n * 1000), 12, '0') || '70008000000000000000')::uuid, now() - n * interval '1 s',
			CASE WHEN n <= 120 THEN 'job' ELSE 'k' || n END, 'daily', gen_random_uuid(), now() - n * interval '1 s', now() - n * interval '1 s', 't', 'run', 's' || n % 10, 'fired'
		FROM generate_series(1, 100000) n`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "ANALYZE timeout_history"); err != nil {
		t.Fatal(err)
	}
	x := why("job")
	if len(x.Timeline) != 100 || x.Omitted == 0 || time.Since(x.Timeline[len(x.Timeline)-1].At) > time.Minute {
		t.Errorf("%d lines, %d omitted, the last at %v", len(x.Timeline), x.Omitted, x.Timeline[len(x.Timeline)-1].At)
	}
	// The last of the 10,000 of a subject are found without reading all.
	began := time.Now()
	if x := why("s7"); len(x.Timeline) != 100 {
		t.Errorf("%d lines", len(x.Timeline))
	}
	t.Logf("why of a subject with 10,000 ended timeouts of 100,000 took %v", time.Since(began))
}

// An event of a timeout that is parked says both: that it is a dead letter, and what became of the timeout since then.
func TestWhyOfADeadLetterOfAnEndedTimeout(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	why := explainer(t, testoperator.New(t, pool, schema))
	id := newEpochs(1)[0]
	addEnds(t, pool, end{"o-1", "payment", "payment.late", "o-1", "disarmed", id, uuid.Nil, -time.Hour, -30 * time.Minute, -time.Minute})
	if _, err := pool.Exec(t.Context(), `INSERT INTO consumer (name) VALUES ('billing');
		INSERT INTO consumer_topic (consumer, topic) VALUES ('billing', 'timeouts');
		INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, headers, body)
		VALUES ('billing', '`+id.String()+`', 'dead', 3, 'infinity', 'no fee', now() - interval '20 min', 'shop', 'timeouts', 'payment.late', 'o-1', 0, 0, now() - interval '1 h',
			'', 'o-1', 'payment', '', NULL, '')`); err != nil {
		t.Fatal(err)
	}
	x := why(id.String())
	if !hasLine(x, "dead letter") || !hasLine(x, "timeout payment of o-1: disarmed") || x.Verdict.State != operate.VerdictStopped {
		t.Errorf("got %+v", x)
	}
}

// A timeout of another schema is found as well, and the service that armed it is named.
func TestWhyFindsTheTimeoutsOfEachSchema(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var operators []*operate.Operator
	ids := newEpochs(2)
	for i, name := range []string{"shop", "bank"} {
		pool, schema := testdb.Migrated(t)
		if _, err := pool.Exec(ctx, "UPDATE installation SET source = $1, claimed_at = now()", name); err != nil {
			t.Fatal(err)
		}
		addEnds(t, pool, end{"o-1", name, "late", "o-1", "fired", ids[i], uuid.Nil, -time.Hour, -time.Minute, -time.Minute})
		operators = append(operators, testoperator.New(t, pool, schema))
	}
	y, err := operate.NewSystem(operate.SystemConfig{Operators: operators})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"shop", "bank"} {
		x, err := y.Why(ctx, ids[i].String())
		if err != nil || len(x.Timeline) != 2 || x.Timeline[1].Service != name || !hasLine(x, fmt.Sprintf("timeout %s of o-1: fired", name)) {
			t.Errorf("%s: %+v, %v", name, x, err)
		}
	}
	if x, err := y.Why(ctx, "o-1"); err != nil || len(x.Timeline) != 4 {
		t.Errorf("%+v, %v", x, err)
	}
}
