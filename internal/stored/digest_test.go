package stored_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/wire"
)

func sample() rocketflow.Event {
	return rocketflow.Event{
		ID: uuid.MustParse("01936f5e-0000-7000-8000-000000000001"), Type: "order.placed", Source: "order", Topic: "orders", Subject: "42",
		Sequence: 1795239261468301, Previous: 1795239261468300, Time: time.Unix(1, 0).UTC(), Database: "db",
		ContentType: "application/json", DataSchema: "https://example.com/order", Body: []byte(`{"a":1}`),
		Extensions: map[string]string{"traceparent": "00-1"}, Headers: map[string]string{"tenant": "acme"},
	}
}

// Every copy of an event has its digest, and a digest is kept in tables: it must not change between versions.
func TestCopiesHaveTheSameDigest(t *testing.T) {
	t.Parallel()
	e := sample()
	want := stored.Digest(e)
	if want != digestOfSample {
		t.Errorf("digest of the sample is %d, want %d: rows that were written before would be conflicts", want, int64(digestOfSample))
	}
	for name, edit := range map[string]func(*rocketflow.Event){
		"topic": func(e *rocketflow.Event) { e.Topic = "elsewhere" },
		"order": func(e *rocketflow.Event) { e.Sequence, e.Previous = 0, 0 },
		"time":  func(e *rocketflow.Event) { e.Time = time.Now() },
		"db":    func(e *rocketflow.Event) { e.Database = "" },
		"trace": func(e *rocketflow.Event) { e.Headers = map[string]string{"traced": "1"} },
	} {
		c := sample()
		edit(&c)
		if stored.Digest(c) != want {
			t.Errorf("%s: a copy is a conflict", name)
		}
	}
}

func TestDifferentEventsHaveDifferentDigests(t *testing.T) {
	t.Parallel()
	seen := map[int64]string{stored.Digest(sample()): "sample"}
	for name, edit := range map[string]func(*rocketflow.Event){
		"source":       func(e *rocketflow.Event) { e.Source = "payment" },
		"id":           func(e *rocketflow.Event) { e.ID = uuid.New() },
		"original id":  func(e *rocketflow.Event) { e.OriginalID = "7" },
		"type":         func(e *rocketflow.Event) { e.Type = "order.paid" },
		"subject":      func(e *rocketflow.Event) { e.Subject = "43" },
		"content type": func(e *rocketflow.Event) { e.ContentType = "text/plain" },
		"schema":       func(e *rocketflow.Event) { e.DataSchema = "" },
		"extension":    func(e *rocketflow.Event) { e.Extensions = map[string]string{"traceparent": "00-2"} },
		"no extension": func(e *rocketflow.Event) { e.Extensions = nil },
		"body":         func(e *rocketflow.Event) { e.Body = []byte(`{"a":2}`) },
		"no body":      func(e *rocketflow.Event) { e.Body = nil },
		"timeout":      func(e *rocketflow.Event) { e.TimeoutName = "pay by" },
		"shifted":      func(e *rocketflow.Event) { e.Type, e.Subject = "order.placed4", "2" },
	} {
		c := sample()
		edit(&c)
		if other, twice := seen[stored.Digest(c)]; twice {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[stored.Digest(c)] = name
	}
}

// A message is read to the digest of what was published.
func TestDigestSurvivesTheWire(t *testing.T) {
	t.Parallel()
	e := sample()
	got, err := wire.EventOf(broker.Delivery{Message: wire.MessageOf(e), Attempt: 3})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Digest(got) != stored.Digest(e) {
		t.Errorf("%+v is another event than %+v", got, e)
	}
}

const digestOfSample = 3941408678983544276
