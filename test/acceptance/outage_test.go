package acceptance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestABrokerOutageLosesAndDoublesNothing kills the broker. Transactions go on, the broker comes back, and every event has
// its effect once and in order, without a restart of the service.
func TestABrokerOutageLosesAndDoublesNothing(t *testing.T) {
	mq := testbroker.Start(t)
	s := setup(t, mq.NameServer())
	box := s.outbox()
	router := s.router(box)
	router.Handle("ledger", s.topic, "counted", record)
	s.start(router)

	const keys, each = 5, 10 // fifty transactions while it is down
	s.exec("CREATE TABLE account (key text PRIMARY KEY, number int NOT NULL)")
	sent := 0
	business := func() (took time.Duration) {
		t.Helper()
		key, number := fmt.Sprint("account-", sent%keys), sent/keys+1
		sent++
		begin := time.Now()
		err := box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET number = $2", key, number); err != nil {
				return err
			}
			return tx.Publish(ctx, event{key, number, s.topic})
		})
		if err != nil {
			t.Fatalf("transaction %d: %v", sent, err)
		}
		return time.Since(begin)
	}
	handled := func() int { return s.count("SELECT count(DISTINCT (key, number)) FROM effect") }
	for range keys {
		business()
	}
	owed := func() int64 {
		n, _, err := box.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	poll.Within(t, 30*time.Second, "events are handled and acked before the outage", func() bool { return handled() == sent && owed() == 0 })

	mq.Kill()
	var slowest time.Duration
	for range keys * each {
		slowest = max(slowest, business())
	}
	if slowest > 1500*time.Millisecond {
		t.Errorf("a transaction took %v while the broker was down", slowest)
	}
	if n := owed(); n != keys*each {
		t.Errorf("%d events are owed, want %d", n, keys*each)
	}
	if err := mq.Restart(bounded(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	poll.Within(t, 30*time.Second, "the events of the outage are handled", func() bool { return handled() == sent })
	t.Logf("the slowest transaction took %v; all was handled %v after the broker was back", slowest, time.Since(back))

	for range keys {
		business()
	}
	poll.Within(t, 10*time.Second, "events are handled after the outage", func() bool { return handled() == sent })
	poll.Within(t, 10*time.Second, "nothing is owed", func() bool { return owed() == 0 })
	if n := s.count("SELECT count(*) FROM effect"); n != sent {
		t.Errorf("%d effects of %d events", n, sent)
	}
	if n := s.count(`SELECT count(*) FROM (SELECT number <> row_number() OVER (PARTITION BY key ORDER BY n) AS wrong FROM effect) x WHERE wrong`); n != 0 {
		t.Errorf("%d effects out of order", n)
	}
	poll.Within(t, 10*time.Second, "the router is well", func() bool { return router.Err() == nil })
}
