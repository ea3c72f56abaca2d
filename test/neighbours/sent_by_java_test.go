package neighbours

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// queues is how many queues the topic of these tests has.
const queues = 4

// javaIsHandled checks that each message of a producer in Java is delivered once with all that it says, and has one effect or is a
// dead letter that says why; also when all are delivered again, to a process with the other transport.
func javaIsHandled(t *testing.T, java *javaClient, transport rocketmq.Transport) {
	t.Parallel()
	c := open(t, transport)
	topic := newTopic(t, c, "sent", queues)
	deliveries := subscribe(t, c, topic, false)
	serial := subscribe(t, c, topic, true)
	list := allSent(topic)
	ids := map[string][]string{}
	for _, s := range list {
		command := map[string]any{"op": "send", "messages": s.messages}
		maps.Copy(command, s.how)
		ids[s.name] = java.do(t, command)
	}
	java.listen(t, "plain", unique("announce"), topic) // its heartbeat has the broker ask the producer about the open transaction

	pool, schema := testdb.Partitioned(t)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE effect (name text, type text, subject text, source text, content_type text, original text, n text, headers jsonb, body bytea)"); err != nil {
		t.Fatal(err)
	}
	box := newOutbox(t, c, pool, schema, "service", outbox.HalfMessages)
	prefix := unique("handled") + "-"
	first := startRouter(t, c, pool, schema, box, prefix, topic)
	operator := testoperator.New(t, pool, schema)
	checkDeliveries(t, list, ids, deliveries)
	checkOrder(t, serial)
	checkOutcomes(t, list, pool, operator)
	if n := first.duplicates.Load(); n != 0 {
		t.Errorf("%d events were taken for duplicates", n)
	}

	first.stop(t)
	resetOffsets(t, topic, prefix+"consumer")
	other := rocketmq.Own
	if transport == rocketmq.Own {
		other = rocketmq.ClientGo
	}
	second := startRouter(t, open(t, other), pool, schema, box, prefix, topic)
	effects := 0
	for _, s := range list {
		effects += s.count()
	}
	poll.Succeeds(t, time.Minute, func() error {
		if n := int(second.duplicates.Load()); n < effects {
			return fmt.Errorf("%d of %d events were found to be duplicates", n, effects)
		}
		return nil
	})
	checkOutcomes(t, list, pool, operator)
	second.stop(t)
}

// count returns how many effects the messages have.
func (s sent) count() int {
	if s.nothing || s.dead != "" {
		return 0
	}
	return len(s.messages)
}

// subscribe returns what a consumer of the driver gets.
func subscribe(t *testing.T, c *rocketmq.Client, topic string, serial bool) <-chan broker.Delivery {
	t.Helper()
	deliveries := make(chan broker.Delivery, 10_000)
	k, err := c.Subscribe(deadline(t, time.Minute), broker.Subscription{Group: unique("driver"), Topics: []string{topic}, Serial: serial},
		func(_ context.Context, d broker.Delivery) error {
			deliveries <- d
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := k.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return deliveries
}

type runningRouter struct {
	*handlers.Router
	duplicates atomic.Int64
	once       sync.Once
}

func (r *runningRouter) stop(t *testing.T) {
	t.Helper()
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// startRouter starts handlers that record each event.
func startRouter(t *testing.T, c *rocketmq.Client, pool *pgxpool.Pool, schema string, box *outbox.Outbox, prefix, topic string) *runningRouter {
	t.Helper()
	r := &runningRouter{}
	var err error
	r.Router, err = handlers.New(handlers.Config{
		Pool: pool, Source: "service", Transactor: box, Broker: c, Schema: schema, GroupPrefix: prefix,
		Listener: &handlers.Listener{Duplicate: func(handlers.EventInfo) { r.duplicates.Add(1) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, eventType := range []string{tag, handlers.Untagged, "order.shipped"} {
		r.Handle("consumer", topic, eventType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if _, err := handlers.Decode[any](e); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO effect VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", e.Headers["case"], e.Type, e.Subject, e.Source,
				e.ContentType, e.OriginalID, e.Headers["n"], e.Headers, e.Body)
			return err
		})
	}
	if err := r.Start(deadline(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// checkDeliveries checks what the driver delivers.
func checkDeliveries(t *testing.T, list []sent, ids map[string][]string, deliveries <-chan broker.Delivery) {
	t.Helper()
	want := 0
	for _, s := range list {
		if !s.nothing {
			want += len(s.messages)
		}
	}
	came := map[string]bool{} // ids
	for range want {
		d := receive(t, deliveries)
		name := d.Properties["case"]
		i := slices.IndexFunc(list, func(s sent) bool { return s.name == name })
		if i < 0 || list[i].nothing {
			t.Errorf("got %+v", d)
			continue
		}
		s := list[i]
		if !slices.Contains(ids[name], d.ID) || came[d.ID] {
			t.Errorf("%s: id is %s, sent with %v", name, d.ID, ids[name])
		}
		came[d.ID] = true
		wantTag, _ := s.messages[0]["tag"].(string)
		if d.Tag != wantTag || d.Attempt != 1 || d.ShardingKey != "" || d.Born.Before(time.Now().Add(-10*time.Minute)) || d.Stored.IsZero() {
			t.Errorf("%s: got %+v", name, d)
		}
		if (d.Unreadable != nil) != (name == "too long") {
			t.Errorf("%s: unreadable is %v", name, d.Unreadable)
		}
		if body, ok := s.messages[0]["body"].([]byte); ok && d.Unreadable == nil && s.messages[0]["event"] == nil && string(d.Body) != string(body) {
			t.Errorf("%s: body is %.100q", name, d.Body)
		}
	}
}

// checkOrder checks that a serial consumer gets the messages of a queue in their order.
func checkOrder(t *testing.T, deliveries <-chan broker.Delivery) {
	t.Helper()
	for n := 1; n <= 3; {
		if d := receive(t, deliveries); d.Properties["case"] == "ordered" {
			if d.Properties["n"] != strconv.Itoa(n) || d.Queue != 1 {
				t.Errorf("message %d is %+v", n, d)
			}
			n++
		}
	}
}

// checkOutcomes waits until all messages have their effects or are dead letters, and compares them.
func checkOutcomes(t *testing.T, list []sent, pool *pgxpool.Pool, operator *operate.Operator) {
	t.Helper()
	wantEffects, wantDead := map[string]int{}, map[string]int{}
	for _, s := range list {
		switch {
		case s.dead != "":
			wantDead[s.name] = len(s.messages)
		case !s.nothing:
			wantEffects[s.name] = len(s.messages)
		}
	}
	type effect struct {
		name, eventType, subject, source, contentType, original, n string
		headers                                                    map[string]string
	}
	var effects []effect
	reasons := map[string]string{}
	poll.Succeeds(t, time.Minute, func() error {
		rows, err := pool.Query(t.Context(), "SELECT name, type, subject, source, content_type, original, n, headers FROM effect")
		if err != nil {
			return err
		}
		if effects, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e effect, err error) {
			return e, row.Scan(&e.name, &e.eventType, &e.subject, &e.source, &e.contentType, &e.original, &e.n, &e.headers)
		}); err != nil {
			return err
		}
		got := map[string]int{}
		for _, e := range effects {
			got[e.name]++
		}
		letters, err := operator.DeadLetters(t.Context(), operate.ParkedFilter{All: true})
		if err != nil {
			return err
		}
		dead := map[string]int{}
		for _, l := range letters {
			dead[l.Event.Headers["case"]]++
			reasons[l.Event.Headers["case"]] = l.LastError
		}
		if !maps.Equal(got, wantEffects) || !maps.Equal(dead, wantDead) {
			return fmt.Errorf("effects: %s; dead letters: %s (%v)", difference(got, wantEffects), difference(dead, wantDead), reasons)
		}
		return nil
	})
	for _, e := range effects {
		s := list[slices.IndexFunc(list, func(s sent) bool { return s.name == e.name })]
		delete(e.headers, "case")
		delete(e.headers, "n")
		if e.eventType != s.eventType || s.subject != "" && e.subject != s.subject || e.source != s.source || e.original != s.original ||
			e.contentType != cmp.Or(s.contentType, "application/json") || s.headers != nil && !maps.Equal(e.headers, s.headers) {
			t.Errorf("%s: got %+v", e.name, e)
		}
	}
	for _, s := range list {
		if !strings.Contains(reasons[s.name], s.dead) {
			t.Errorf("%s: the dead letter says %q, want %q", s.name, reasons[s.name], s.dead)
		}
	}
}

func difference(got, want map[string]int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			fmt.Fprintf(&b, "%s: %d of %d, ", name, got[name], want[name])
		}
	}
	for name, n := range got {
		if want[name] == 0 {
			fmt.Fprintf(&b, "%s: %d of none, ", name, n)
		}
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// resetOffsets has a group without members read all queues of a topic again.
func resetOffsets(t *testing.T, topic, group string) {
	t.Helper()
	conn := testbroker.DialBroker(t, testbroker.NeedsReal(t))
	for queue := range queues {
		if _, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: map[string]string{
			"consumerGroup": group, "topic": topic, "queueId": strconv.Itoa(queue), "commitOffset": "0",
		}}); err != nil {
			t.Fatal(err)
		}
	}
}
