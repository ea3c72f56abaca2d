package acceptance

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// seen collects what a handler was given.
type seen struct {
	mu     sync.Mutex
	events []rocketflow.Event
}

func (s *seen) handle(_ context.Context, _ rocketflow.Tx, e rocketflow.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	return nil
}

func (s *seen) bySubject() map[string]rocketflow.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]rocketflow.Event{}
	for _, e := range s.events {
		m[e.Subject] = e
	}
	return m
}

// TestCloudEventsOfOtherSDKsAreHandled sends CloudEvents as the SDKs of other languages do. They are handled without loss:
// JSON with any of its content types, structured mode, events without data, ids that are no UUIDs.
func TestCloudEventsOfOtherSDKsAreHandled(t *testing.T) {
	t.Parallel()
	s := setup(t)
	box := s.outbox()
	router := s.router(box)
	var raw, decoded seen
	router.Handle("raw", s.topic, "noted", raw.handle)
	router.Handle("decoded", s.topic, "counted", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if _, err := wire.DecodeBody[event](e); err != nil {
			return err
		}
		return decoded.handle(ctx, tx, e)
	})
	s.start(router)

	send := func(tag, body string, properties map[string]string) {
		t.Helper()
		if _, err := s.client.Send(t.Context(), broker.Message{Topic: s.topic, Tag: tag, Body: []byte(body), Properties: properties}); err != nil {
			t.Fatal(err)
		}
	}
	binary := func(more map[string]string) map[string]string {
		p := map[string]string{"CE_id": uuid.NewString(), "CE_source": "/java", "CE_specversion": "1.0", "CE_type": "noted"}
		maps.Copy(p, more)
		return p
	}
	types := []string{"application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON", "text/json", "application/vnd.acme.note+json"}
	for i, contentType := range types {
		send("counted", `{"number":1}`, binary(map[string]string{"CE_type": "counted", "CE_contenttype": contentType, "CE_subject": fmt.Sprint(i)}))
	}
	send("noted", "\x00", binary(map[string]string{"CE_subject": "no data", "CE_id": "7", "CE_dataschema": "https://example.com", "CE_ext": "é"}))
	send("noted", `{"specversion":"1.0","id":"8","source":"/js","type":"noted","subject":"structured","data":{"a":1},"ext":true}`,
		map[string]string{"CE_contenttype": "application/cloudevents+json; charset=UTF-8"})
	// And our own.
	charset := rocketflow.Event{Topic: s.topic, Type: "counted", Subject: "charset", ContentType: "application/json; charset=utf-8", Body: []byte(`{"number":2}`)}
	empty := rocketflow.Event{Topic: s.topic, Type: "noted", Subject: "empty", Extensions: map[string]string{"ext": "x"}}
	zero := rocketflow.Event{Topic: s.topic, Type: "noted", Subject: "zero", ContentType: "application/octet-stream", Body: []byte{0}}
	if err := s.publish(box, charset, empty, zero); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 20*time.Second, "all are handled", func() bool { return len(decoded.bySubject()) == len(types)+1 && len(raw.bySubject()) == 4 })
	got := raw.bySubject()
	if e := got["no data"]; len(e.Body) > 0 || e.OriginalID != "7" || e.Source != "/java" || e.DataSchema != "https://example.com" || e.Extensions["ext"] != "é" {
		t.Errorf("without data: %+v", e)
	}
	if e := got["structured"]; string(e.Body) != `{"a":1}` || e.OriginalID != "8" || e.Source != "/js" || e.Extensions["ext"] != "true" || e.Topic != s.topic {
		t.Errorf("structured: %+v", e)
	}
	if e := got["empty"]; len(e.Body) > 0 || e.Extensions["ext"] != "x" || !e.Ordered() {
		t.Errorf("empty: %+v", e)
	}
	if e := got["zero"]; string(e.Body) != "\x00" {
		t.Errorf("zero: %+v", e)
	}
}

// TestAnEventThatIsNotUnderstoodIsADeadLetter checks that a message that can't be decoded in full is a dead letter of its
// own with the reason, and never an event with fields missing.
func TestAnEventThatIsNotUnderstoodIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := setup(t)
	box := s.outbox()
	router := s.router(box)
	var raw seen
	router.Handle("raw", s.topic, "noted", raw.handle)
	s.start(router)
	good := map[string]string{"CE_id": "1", "CE_source": "/java", "CE_specversion": "1.0", "CE_type": "noted"}
	for i, c := range []struct{ property, value string }{
		{"CE_id", ""}, {"CE_id", ""}, {"CE_source", ""}, {"CE_specversion", "0.3"}, {"CE_Subject", "k"}, {"CE_contenttype", "json"}, {"rf_previous", "0"},
		{"CE_contenttype", "application/cloudevents-batch+json"}, {"CE_contenttype", "application/cloudevents+json"}, {"CE_subject", "a\u0085"},
	} {
		p := maps.Clone(good)
		p[c.property] = c.value
		if _, err := s.client.Send(t.Context(), broker.Message{Topic: s.topic, Tag: "noted", Body: []byte("{}"), Properties: p}); err != nil {
			t.Fatal(err)
		}
		dead := testoperator.New(t, s.pool, s.schema)
		poll.Within(t, 20*time.Second, fmt.Sprintf("a dead letter that names %s=%q", c.property, c.value), func() bool {
			list, err := dead.DeadLetters(t.Context(), operate.ParkedFilter{Consumer: "raw"})
			if err != nil {
				t.Fatal(err)
			}
			named := false
			for _, d := range list {
				named = named || strings.Contains(d.LastError, strings.ReplaceAll(c.property, "rf_previous", "CE_sequence"))
			}
			return len(list) == i+1 && named
		})
	}
	if n := len(raw.bySubject()); n > 0 {
		t.Errorf("%d events were handled", n)
	}
}

// TestAnyURIReferenceIsASource gives services sources that are URI references.
func TestAnyURIReferenceIsASource(t *testing.T) {
	t.Parallel()
	s := setup(t)
	source := "https://example.com/" + s.topic + "?a=b"
	box := s.outbox(func(c *outbox.Config) { c.Source = source })
	router := s.router(box, func(c *handlers.Config) { c.Source = source })
	var raw seen
	router.Handle("raw", s.topic, "counted", raw.handle)
	s.start(router)
	if err := s.publish(box, event{"k", 1, s.topic}, event{"k", 2, s.topic}); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 20*time.Second, "its events are handled", func() bool {
		raw.mu.Lock()
		defer raw.mu.Unlock()
		return len(raw.events) == 2
	})
	if e := raw.bySubject()["k"]; e.Source != source || !e.Ordered() {
		t.Errorf("got %+v", e)
	}
}
