package acceptance

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

// TestHalfMessagesOfACrashAreAllDecided leaves thousands of half messages, half of them of transactions that committed, as
// a crash does. All are decided within 30 s, each committed one is delivered once, and other publications are not delayed.
// The environment variable STRAYS sets the number.
func TestHalfMessagesOfACrashAreAllDecided(t *testing.T) {
	strays := 2000
	if n, err := strconv.Atoi(os.Getenv("STRAYS")); err == nil {
		strays = n
	}
	s := setup(t)
	ctx, pool, source := t.Context(), s.pool, s.topic
	var (
		mu     sync.Mutex
		copies = map[uuid.UUID]int{}
	)
	consumer, err := s.client.Subscribe(ctx, broker.Subscription{Group: source + "-watch", Topics: []string{source}}, func(_ context.Context, d broker.Delivery) error {
		e, err := wire.EventOf(d)
		mu.Lock()
		defer mu.Unlock()
		copies[e.ID]++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = consumer.Stop(context.Background()) })

	// What the dead process did: half messages, and rows of every second one.
	dead, err := connect(t, s.nameServers).OpenTransactionProducer(ctx, source, func(context.Context, broker.Check) (broker.Decision, func(error)) {
		return broker.Unknown, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var database string
	if err := pool.QueryRow(ctx, "SELECT id::text FROM installation").Scan(&database); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.SetLimit(16)
	ids := make([]uuid.UUID, strays)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
		group.Go(func() error {
			e := rocketflow.Event{ID: ids[i], Source: source, Topic: source, Type: "t", Subject: fmt.Sprint(i), Database: database, Time: time.Now(), ContentType: "application/json", Body: []byte("{}")}
			_, err := dead.Prepare(ctx, wire.MessageOf(e))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	_, err = pool.Exec(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		SELECT id, $2, $2, 't', n::text, 0, 0, clock_timestamp(), 'application/json', '{}' FROM unnest($1::uuid[]) WITH ORDINALITY AS x (id, n) WHERE n % 2 = 0`, ids, source)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(ctx); err != nil {
		t.Fatal(err)
	}

	var rollbacks, commits, unknowns int
	o := s.outbox(func(c *outbox.Config) {
		c.MaxTransaction, c.DrainRate = time.Second, -1
		c.Listener = &outbox.Listener{Checked: func(i outbox.CheckedInfo) {
			mu.Lock()
			defer mu.Unlock()
			switch i.Decision {
			case broker.Rollback:
				rollbacks++
			case broker.Commit:
				commits++
			case broker.Unknown:
				unknowns++
			}
		}}
	})
	begin := time.Now()
	var times []time.Duration // of other transactions
	for {
		mu.Lock()
		n, rolledBack := len(copies), rollbacks
		mu.Unlock()
		if n == strays/2+len(times) && rolledBack >= strays/2 {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("after 30 s %d of %d were delivered, %d rolled back", n, strays/2+len(times), rolledBack)
		}
		one := time.Now()
		err := o.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			return tx.Publish(ctx, rocketflow.Event{Topic: source, Type: "t", Subject: "other", Body: []byte("{}")})
		})
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(one))
		time.Sleep(10 * time.Millisecond) // the pace of other traffic
	}
	took := time.Since(begin)
	time.Sleep(3 * time.Second) // for doubles: another round of checks
	mu.Lock()
	defer mu.Unlock()
	doubled := 0
	for _, n := range copies {
		if n != 1 {
			doubled++
		}
	}
	if doubled > 0 || len(copies) != strays/2+len(times) {
		t.Errorf("%d events delivered, %d of them more than once; want %d once", len(copies), doubled, strays/2+len(times))
	}
	slices.Sort(times)
	p90, p99 := times[len(times)*90/100], times[len(times)*99/100]
	t.Logf("%d strays decided in %v (%d commits, %d rollbacks, %d unknown); of %d other transactions p50 took %v, p90 %v, p99 %v",
		strays, took, commits, rollbacks, unknowns, len(times), times[len(times)/2], p90, p99)
	if p90 > time.Second { // p99 of some thirty is the slowest, which may have met the start of a JVM
		t.Errorf("p90 of other transactions is %v", p90)
	}
}
