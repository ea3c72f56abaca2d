package neighbours

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// inStream is how many events of a stream are published.
const inStream = 10

// full is an event with all attributes but a subject.
var full = rocketflow.Event{
	Type: "full", ContentType: "text/plain; charset=utf-8", DataSchema: "https://example.com/schema#1",
	Extensions: map[string]string{"comexampleext": "an é value"}, Headers: map[string]string{"tenant": "acme"}, Body: []byte("größe"),
}

// javaReads checks that a plain listener, an ordered one and a reader of CloudEvents get what an outbox publishes on each path.
func javaReads(t *testing.T, java *javaClient, transport rocketmq.Transport) {
	t.Parallel()
	for name, path := range map[string]outbox.Path{"half messages": outbox.HalfMessages, "relay": outbox.Relay} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, transport)
			topic, source := newTopic(t, c, "published", 4), unique("source")
			listeners := map[string]<-chan heard{}
			for _, kind := range []string{"plain", "ordered", "cloudevents"} {
				listeners[kind] = java.listen(t, kind, unique(kind), topic)
			}
			pool, schema := testdb.Partitioned(t)
			box := newOutbox(t, c, pool, schema, source, path)
			for i := range inStream {
				publish(t, box, rocketflow.Event{Topic: topic, Type: "order.changed", Subject: "o-1", Body: []byte(strconv.Itoa(i))})
				publish(t, box, rocketflow.Event{Topic: topic, Type: "order.changed", Subject: "order two", Body: []byte(strconv.Itoa(i))})
			}
			e := full
			e.Topic = topic
			publish(t, box, e)
			publish(t, box, rocketflow.Event{Topic: topic, Type: "bytes", ContentType: "application/octet-stream", Body: []byte{0, 1, 0xFF}})
			publish(t, box, rocketflow.Event{Topic: topic, Type: "bare"})
			published := recorded(t, pool)
			if len(published) != 2*inStream+3 {
				t.Fatalf("%d events in the outbox", len(published))
			}
			for kind, messages := range listeners {
				t.Run(kind, func(t *testing.T) {
					t.Parallel()
					check(t, kind, published, messages)
				})
			}
		})
	}
}

func publish(t *testing.T, box *outbox.Outbox, e rocketflow.Event) {
	t.Helper()
	if err := box.Within(deadline(t, 30*time.Second), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, e) }); err != nil {
		t.Fatal(err)
	}
}

// recorded returns the events of the outbox by their ids.
func recorded(t *testing.T, pool *pgxpool.Pool) map[string]rocketflow.Event {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT id::text, type, source, subject, sequence, recorded_at, content_type, body FROM outbox")
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]rocketflow.Event{}
	var e rocketflow.Event
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id, &e.Type, &e.Source, &e.Subject, &e.Sequence, &e.Time, &e.ContentType, &e.Body}, func() error {
		e.ID = uuid.MustParse(id)
		if e.Type == "full" {
			e.DataSchema, e.Extensions, e.Headers = full.DataSchema, full.Extensions, full.Headers
		}
		events[id] = e
		e = rocketflow.Event{}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return events
}

// check receives all events and compares them with those that were published.
func check(t *testing.T, kind string, published map[string]rocketflow.Event, messages <-chan heard) {
	t.Helper()
	seen := map[string]bool{}
	last := map[string]string{} // by subject: the body of the event before
	for len(seen) < len(published) {
		m := receive(t, messages)
		if m.Error != "" {
			t.Fatalf("a listener in Java can't read a message: %s", m.Error)
		}
		id := m.Properties["CE_id"]
		e, ok := published[id]
		if !ok || seen[id] {
			t.Fatalf("not published, or read twice: %+v", m)
		}
		seen[id] = true
		body := e.Body
		if len(body) == 0 {
			body = []byte{0} // what CloudEvents' binding has for no data
		}
		if m.Properties["TAGS"] != e.Type || string(m.Body) != string(body) {
			t.Errorf("%s: got %+v", e.Type, m)
		}
		if keys := strings.Fields(m.Properties["KEYS"]); keys[0] != id || e.Subject == "o-1" && (len(keys) != 2 || keys[1] != e.Subject) {
			t.Errorf("%s: KEYS are %q", e.Type, keys)
		}
		for name, value := range e.Headers {
			if m.Properties[name] != value {
				t.Errorf("%s: header %s is %q, want %q", e.Type, name, m.Properties[name], value)
			}
		}
		if kind == "ordered" && e.Subject != "" {
			if m.Properties["SHARDING_KEY"] != e.Subject || last[e.Subject] >= string(e.Body) {
				t.Errorf("%s: %s came after %s", e.Subject, e.Body, last[e.Subject])
			}
			last[e.Subject] = string(e.Body)
		}
		if kind == "cloudevents" {
			checkCloudEvent(t, e, m)
		}
	}
}

// checkCloudEvent compares what CloudEvents' SDK has read with the event.
func checkCloudEvent(t *testing.T, e rocketflow.Event, m heard) {
	t.Helper()
	want := map[string]string{
		"specversion": "1.0", "id": e.ID.String(), "source": e.Source, "type": e.Type, "datacontenttype": e.ContentType,
	}
	maps.Copy(want, e.Extensions)
	if e.DataSchema != "" {
		want["dataschema"] = e.DataSchema
	}
	if e.Subject != "" {
		want["subject"], want["partitionkey"], want["sequence"] = e.Subject, e.Subject, strconv.FormatInt(e.Sequence, 10)
	}
	got := maps.Clone(m.Attributes)
	at, err := time.Parse(time.RFC3339Nano, got["time"])
	if err != nil || !at.Truncate(time.Microsecond).Equal(e.Time.Truncate(time.Microsecond)) {
		t.Errorf("%s: time is %q (%v), want %v", e.Type, got["time"], err, e.Time)
	}
	delete(got, "time")
	if !maps.Equal(got, want) {
		t.Errorf("%s: attributes are %v, want %v", e.Type, got, want)
	}
	if !slices.Equal(m.Data, e.Body) {
		t.Errorf("%s: data is %q, want %q", e.Type, m.Data, e.Body)
	}
}
