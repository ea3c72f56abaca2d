package rocketflow_test

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

func sample() rocketflow.Event {
	return rocketflow.Event{
		ID: uuid.Must(uuid.NewV7()), Type: "order.placed", Source: "order", Topic: "orders", Subject: "42",
		Sequence: 1795239261468301, Previous: 1795239261468300, Time: time.Now().UTC().Truncate(time.Microsecond),
		Database: uuid.NewString(), ContentType: rocketflow.ContentTypeJSON,
		Headers: map[string]string{"tenant": "acme"}, Body: []byte(`{"a":1}`),
	}
}

func TestMessageRoundTrip(t *testing.T) {
	t.Parallel()
	plain := sample()
	plain.Sequence, plain.Previous, plain.Headers = 0, 0, nil
	timeout := plain
	timeout.TimeoutKey, timeout.TimeoutName = "order/42", "pay by"
	for name, want := range map[string]rocketflow.Event{"ordered": sample(), "unordered": plain, "timeout": timeout} {
		got, err := rocketflow.EventOf(broker.Delivery{Message: want.Message()})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// Anyone who reads CloudEvents reads ours: these names are those of the RocketMQ binding.
func TestMessageIsACloudEvent(t *testing.T) {
	t.Parallel()
	e := sample()
	m := e.Message()
	want := map[string]string{
		"CE_id": e.ID.String(), "CE_type": e.Type, "CE_source": e.Source, "CE_subject": "42", "CE_specversion": "1.0",
		"CE_contenttype": "application/json", "CE_time": e.Time.Format(time.RFC3339Nano), "CE_partitionkey": "42",
		"CE_sequence": "1795239261468301", "rf_previous": "1795239261468300", "rf_db": e.Database, "tenant": "acme",
	}
	if !maps.Equal(m.Properties, want) {
		t.Errorf("properties %v, want %v", m.Properties, want)
	}
	if m.Topic != "orders" || m.Tag != e.Type || m.ShardingKey != "42" || len(m.Keys) != 2 || m.Keys[1] != "42" {
		t.Errorf("message %+v", m)
	}
	if len(m.ID) != 32 || strings.ToUpper(m.ID) != m.ID {
		t.Errorf("unique key %q, want 32 hex digits", m.ID)
	}
}

func TestForeignMessage(t *testing.T) {
	t.Parallel()
	d := broker.Delivery{
		Message: broker.Message{ID: "AC11000100002A9F", Topic: "orders", Tag: "created", Keys: []string{"7", "8"}, Body: []byte("x")},
		Born:    time.Unix(1, 0), Broker: "a", Queue: 1, Offset: 5,
	}
	first, err := rocketflow.EventOf(d)
	if err != nil {
		t.Fatal(err)
	}
	d.Offset++ // the same message, delivered once more
	again, err := rocketflow.EventOf(d)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != again.ID || first.Type != "created" || first.Subject != "7" || first.Ordered() || !first.Time.Equal(d.Born) {
		t.Errorf("got %+v and %+v", first, again)
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	for property, value := range map[string]string{
		"CE_id": "", "CE_specversion": "2.0", "CE_type": "", "CE_time": "yesterday", "CE_sequence": "0", "rf_previous": "-1", "CE_subject": "",
	} {
		m := sample().Message()
		m.Properties[property] = value
		_, err := rocketflow.EventOf(broker.Delivery{Message: m})
		if !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), property) {
			t.Errorf("%s=%q: got %v", property, value, err)
		}
	}
}

func FuzzEventOf(f *testing.F) {
	for _, v := range []string{"", "1.0", "1795239261468301", "2026-11-21T05:34:21.471409Z", "\x01"} {
		f.Add(v, v, v, v, v, v)
	}
	f.Fuzz(func(t *testing.T, id, spec, typ, at, sequence, previous string) {
		m := sample().Message()
		m.Properties["CE_id"], m.Properties["CE_specversion"], m.Properties["CE_type"] = id, spec, typ
		m.Properties["CE_time"], m.Properties["CE_sequence"], m.Properties["rf_previous"] = at, sequence, previous
		e, err := rocketflow.EventOf(broker.Delivery{Message: m})
		if err != nil {
			if !errors.Is(err, rocketflow.ErrUndecodable) {
				t.Errorf("error %v doesn't match ErrUndecodable", err)
			}
			return
		}
		if e.Ordered() && e.Previous >= e.Sequence {
			t.Errorf("sequence %d after %d", e.Sequence, e.Previous)
		}
		if again, err := rocketflow.EventOf(broker.Delivery{Message: e.Message()}); err == nil && again.ID != e.ID {
			t.Errorf("id %s became %s", e.ID, again.ID)
		}
	})
}

type paid struct {
	Order string `json:"order"`
}

func (p paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.captured", Subject: p.Order}
}

func TestNewEventAndDecode(t *testing.T) {
	t.Parallel()
	e, err := rocketflow.NewEvent(paid{"42"})
	if err != nil {
		t.Fatal(err)
	}
	if e.ID.Version() != 7 || e.Subject != "42" || string(e.Body) != `{"order":"42"}` {
		t.Errorf("got %+v", e)
	}
	if p, err := rocketflow.Decode[paid](e); err != nil || p.Order != "42" {
		t.Errorf("got %+v, %v", p, err)
	}
	for name, edit := range map[string]func(*rocketflow.Event){
		"body":         func(e *rocketflow.Event) { e.Body = []byte("{") },
		"content type": func(e *rocketflow.Event) { e.ContentType = "application/protobuf" },
	} {
		bad := e
		edit(&bad)
		if _, err := rocketflow.Decode[paid](bad); !errors.Is(err, rocketflow.ErrUndecodable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Messages that can't be read, or say nothing of their identity, are each a dead letter of their own.
func TestIdentityOfTheUndecodable(t *testing.T) {
	t.Parallel()
	seen := map[uuid.UUID]string{}
	for name, edit := range map[string]func(*broker.Delivery){
		"without id":             func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID = "A" },
		"without id, another":    func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID = "B" },
		"without key":            func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID = "" },
		"without key, the next":  func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID, d.Offset = "", 6 },
		"without key, elsewhere": func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID, d.Queue = "", 2 },
		"another topic":          func(d *broker.Delivery) { delete(d.Properties, "CE_id"); d.ID, d.Topic = "A", "payments" },
		"of another's id":        func(d *broker.Delivery) { d.Properties["CE_time"] = "?"; d.ID = "C" },
	} {
		d := broker.Delivery{Message: sample().Message(), Broker: "a", Queue: 1, Offset: 5}
		id := d.Properties["CE_id"]
		edit(&d)
		e, err := rocketflow.EventOf(d)
		if !errors.Is(err, rocketflow.ErrUndecodable) {
			t.Errorf("%s: got %v", name, err)
		}
		if again, _ := rocketflow.EventOf(d); again.ID != e.ID {
			t.Errorf("%s: is %s and %s", name, e.ID, again.ID)
		}
		if other, twice := seen[e.ID]; twice || e.ID == uuid.Nil || e.ID.String() == id || e.Ordered() {
			t.Errorf("%s: is %+v, as %q", name, e, other)
		}
		seen[e.ID] = name
	}
}

// Ids are unique per source, and any text.
func TestIdentity(t *testing.T) {
	t.Parallel()
	seen := map[uuid.UUID]string{}
	id := uuid.Must(uuid.NewV7()).String()
	for _, text := range []string{id, strings.ToUpper(id), "urn:uuid:" + id, "{" + id + "}", strings.ReplaceAll(id, "-", ""), uuid.Nil.String(), "7", "ab\u00e9 c"} {
		for _, source := range []string{"order", "payment"} {
			m := sample().Message()
			m.Properties["CE_id"], m.Properties["CE_source"] = text, source
			e, err := rocketflow.EventOf(broker.Delivery{Message: m})
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if got := e.Message().Properties["CE_id"]; got != text {
				t.Errorf("%q became %q", text, got)
			}
			if text == id {
				if e.ID.String() != id || e.OriginalID != "" {
					t.Errorf("%q: is %s, %q", text, e.ID, e.OriginalID)
				}
				continue
			}
			if other, twice := seen[e.ID]; twice || e.OriginalID != text || e.ID.Version() != 8 {
				t.Errorf("%q of %s: is %s, %q, as %s", text, source, e.ID, e.OriginalID, other)
			}
			seen[e.ID] = text + " of " + source
		}
	}
}
