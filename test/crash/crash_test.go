package crash

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

const tables = `
	CREATE TABLE movement (account text, n bigint, PRIMARY KEY (account, n));
	CREATE TABLE effect (id bigserial PRIMARY KEY, account text, n bigint, sequence bigint,
		recorded_at timestamptz, handled_at timestamptz DEFAULT clock_timestamp());
	CREATE TABLE nobody (id int PRIMARY KEY);
	CREATE TABLE doomed (id int REFERENCES nobody DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE slow (account text, n bigint);
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(hashtext(TG_TABLE_SCHEMA)); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();`

type bundle struct {
	pool   *pgxpool.Pool
	schema string
	env    map[string]string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	ctx := context.Background()
	pool, schema := testdb.Partitioned(t)
	if _, err := pool.Exec(ctx, tables); err != nil {
		t.Fatal(err)
	}
	topic := "crash-" + schema
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: testbroker.NameServers(t), Service: "crash"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(ctx)
	if err := client.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 4, Kind: broker.Transaction}); err != nil {
		t.Fatal(err)
	}
	return &bundle{pool: pool, schema: schema, env: map[string]string{
		"DATABASE_URL": pool.Config().ConnString(), envSchema: schema, envTopic: topic, envEach: "8", envAccounts: "4", envGrace: "1s",
	}}
}

// with returns a copy of the bundle's environment with the given variables changed.
func (b *bundle) with(changes ...string) map[string]string {
	env := map[string]string{}
	for k, v := range b.env {
		env[k] = v
	}
	for i := 0; i < len(changes); i += 2 {
		env[changes[i]] = changes[i+1]
	}
	return env
}

// settle waits until each movement has its effect, and checks the invariants: once, in order, and no effect of a transaction
// that rolled back.
func (b *bundle) settle(t *testing.T) {
	t.Helper()
	each, _ := strconv.Atoi(b.env[envEach])
	accounts, _ := strconv.Atoi(b.env[envAccounts])
	want := each * accounts
	var movements, effects int
	poll(t, testbroker.Patience(), func() bool {
		query(t, b.pool, "SELECT count(*) FROM movement", &movements)
		query(t, b.pool, "SELECT count(DISTINCT (account, n)) FROM effect WHERE n > 0", &effects)
		return movements == want && effects >= want
	}, func() string {
		return strconv.Itoa(movements) + " movements and " + strconv.Itoa(effects) + " effects of " + strconv.Itoa(want)
	})
	var duplicated, uncommitted, misordered int
	query(t, b.pool, "SELECT count(*) FROM (SELECT FROM effect WHERE n > 0 GROUP BY account, n HAVING count(*) > 1) x", &duplicated)
	query(t, b.pool, "SELECT count(*) FROM effect e WHERE NOT EXISTS (SELECT FROM movement m WHERE m.account = e.account AND m.n = e.n)", &uncommitted)
	query(t, b.pool, "SELECT count(*) FROM (SELECT n, lag(n, 1, 0::bigint) OVER (PARTITION BY account ORDER BY id) AS before FROM effect) x WHERE n <> before + 1", &misordered)
	if duplicated+uncommitted+misordered > 0 {
		t.Errorf("duplicated=%d uncommitted=%d misordered=%d", duplicated, uncommitted, misordered)
	}
}

func poll(t *testing.T, limit time.Duration, ok func() bool, state func() string) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not settled within %v: %s", limit, state())
		}
	}
}

// TestAPublisherKilledAtEachStepLosesNothing kills a publisher at each step. The next process recovers what the dead one
// left: by a check-back where the sweep's grace is too long to help, and although the next process may have nothing to send.
func TestAPublisherKilledAtEachStepLosesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ step, nth, half, grace string }{
		{"recorded", "5", "yes", "1s"},
		{"prepared", "5", "yes", "1s"},
		{"committing", "1", "yes", "1h"},
		{"committing", "1", "yes", "1s"},
		{"committed", "5", "yes", "1h"}, // only the check-back can recover it
		{"committed", "5", "yes", "1s"},
		{"committed", "32", "yes", "1h"}, // the last event: the next publisher sends nothing before the check-back
		{"ended", "5", "yes", "1s"},
		{"acked", "2", "yes", "1s"}, // in batches
		{"recorded", "5", "no", "1s"},
		{"committed", "5", "no", "1s"},
		{"relayed", "5", "no", "1s"},
		{"acked", "2", "no", "1s"},
	} {
		t.Run(c.step+" "+c.nth+" half="+c.half+" grace="+c.grace, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			// The consumer's outbox has another group and the same grace, so only the next publisher can recover the event.
			b.env[envHalf], b.env[envGrace] = c.half, c.grace
			consumer := process(t, b.with(envRole, "consumer"))
			lock, err := b.pool.Begin(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = lock.Rollback(context.Background()) }()
			if _, err := lock.Exec(context.Background(), "SELECT pg_advisory_xact_lock(hashtext($1))", b.schema); err != nil {
				t.Fatal(err)
			}
			waitKilled(t, process(t, b.with(envRole, "publisher", envKillAt, c.step, envKillNth, c.nth)))
			if err := lock.Rollback(context.Background()); err != nil { // a COMMIT that waits for the lock completes now
				t.Fatal(err)
			}
			waitExit(t, process(t, b.with(envRole, "publisher")))
			b.settle(t)
			terminate(t, consumer)
		})
	}
}

// TestAConsumerKilledAtEachStepHandlesAllOnce kills a consumer at each step of handling.
func TestAConsumerKilledAtEachStepHandlesAllOnce(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"received", "ran", "handled"} {
		for _, nth := range []string{"1", "7"} {
			t.Run(step+" "+nth, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				victim := process(t, b.with(envRole, "consumer", envKillAt, step, envKillNth, nth))
				publisher := process(t, b.with(envRole, "publisher"))
				waitKilled(t, victim)
				consumer := process(t, b.with(envRole, "consumer"))
				waitExit(t, publisher)
				b.settle(t)
				terminate(t, consumer)
			})
		}
	}
}

// TestStreamsStayInOrderWhileConsumersComeAndGo has consumers of one group join, die and leave while events flow. The
// streams stay in order without gaps, and no event waits longer than a deployment may take.
func TestStreamsStayInOrderWhileConsumersComeAndGo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.env[envEach], b.env[envAccounts], b.env[envPace] = "120", "20", "4000" // about ten seconds
	handled := func(n int) {
		t.Helper()
		var effects int
		poll(t, testbroker.Patience(), func() bool {
			query(t, b.pool, "SELECT count(*) FROM effect", &effects)
			return effects >= n
		}, func() string { return strconv.Itoa(effects) + " effects, waiting for " + strconv.Itoa(n) })
	}
	consumer := func() *exec.Cmd { return process(t, b.with(envRole, "consumer")) }

	first := consumer()
	publisher := process(t, b.with(envRole, "publisher"))
	handled(300)
	second := consumer()
	handled(700)
	_ = first.Process.Kill()
	_ = first.Wait()
	handled(1100)
	limit := 5.0
	if members, err := testbroker.Members(t.Context(), os.Getenv("ROCKETMQ_NAMESRV"), b.env[envTopic]+"-ledger"); err != nil {
		t.Fatal(err)
	} else if testbroker.Real() && len(members) > 1 {
		t.Log("the broker still lists the consumer that was killed")
		limit = testbroker.Patience().Seconds()
	}
	third := consumer()
	handled(1500)
	terminate(t, second)
	handled(1900)
	fourth := consumer()
	waitExit(t, publisher)
	b.settle(t)
	terminate(t, third)
	terminate(t, fourth)

	var worst, median float64
	query(t, b.pool, `SELECT max(late), percentile_cont(0.5) WITHIN GROUP (ORDER BY late)
		FROM (SELECT extract(epoch FROM handled_at - recorded_at)::float8 AS late FROM effect) x`, &worst, &median)
	t.Logf("recorded to handled: median %.1f ms, worst %.0f ms", median*1e3, worst*1e3)
	if worst > limit {
		t.Errorf("an event waited %.1f s, want at most %.0f (the client's orderly mode: 63)", worst, limit)
	}
}
