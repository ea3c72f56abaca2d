package wire_test

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
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
	foreign, empty, zero := sample(), sample(), sample()
	foreign.ID, foreign.OriginalID = derived(t, foreign.Source, "7 é"), "7 é"
	foreign.DataSchema, foreign.Extensions = "https://example.com/order", map[string]string{"traceparent": "00-1", "comexampleext": "%41 €"}
	empty.Body = nil
	zero.Body = []byte{0} // what stands for no data, as data
	free := plain
	free.Extensions = map[string]string{"sequence": "A-1", "partitionkey": "k"} // some other producer's
	timeout := plain
	timeout.TimeoutKey, timeout.TimeoutName = "order/42", "pay by"
	for name, want := range map[string]rocketflow.Event{"ordered": sample(), "unordered": plain, "timeout": timeout, "of another producer": foreign,
		"without data": empty, "a zero byte": zero, "another's sequence": free} {
		got, err := wire.EventOf(broker.Delivery{Message: wire.MessageOf(want)})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// A message's own times can be any number of milliseconds. An event's time can always be stored and shown.
func TestTimeOfAMessageIsAnInstant(t *testing.T) {
	t.Parallel()
	early, late, stored := time.UnixMilli(-300_000_000_000_000), time.UnixMilli(1<<60), time.Unix(7, 0)
	event := wire.MessageOf(sample())
	delete(event.Properties, "CE_time")
	unreadable := event
	unreadable.Properties = maps.Clone(event.Properties)
	delete(unreadable.Properties, "CE_id")
	for name, m := range map[string]broker.Message{"event": event, "unreadable": unreadable, "no event": {ID: "1", Topic: "orders"}} {
		for _, c := range []struct{ born, stored, want time.Time }{
			{time.Unix(5, 0), stored, time.Unix(5, 0)}, {early, stored, stored}, {late, stored, stored}, {time.Time{}, stored, stored},
			{late, early, time.Time{}},
		} {
			if e, err := wire.EventOf(broker.Delivery{Message: m, Born: c.born, Stored: c.stored}); !e.Time.Equal(c.want) {
				t.Errorf("%s, born %d, stored %d: time %v (%v), want %v", name, c.born.UnixMilli(), c.stored.UnixMilli(), e.Time, err, c.want)
			}
		}
	}
}

// What is cut down can be stored in any database, and tells operators what it was.
func TestCutDownKeepsAllParts(t *testing.T) {
	t.Parallel()
	e := sample()
	e.Source, e.Subject, e.Headers = strings.Repeat("s", 5000), "é\x00", map[string]string{"tenant": "\xff"}
	got := wire.CutDown(e)
	all := got.Headers["rf_undecoded"]
	if !wire.Undecoded(got) || got.ID != e.ID || string(got.Body) != string(e.Body) || got.Ordered() ||
		got.Type != e.Type || got.Topic != e.Topic || len(got.Source) != 100 {
		t.Errorf("got %+v", got)
	}
	for _, part := range []string{e.Source, `"\u00e9\x00"`, `"tenant":"\xff"`, "1795239261468301"} {
		if !strings.Contains(all, part) {
			t.Errorf("%.300s has no %.40s", all, part)
		}
	}
	if text := got.Subject + all; strings.ContainsFunc(text, func(r rune) bool { return r > '~' || r < ' ' }) {
		t.Errorf("%q is no ASCII", text)
	}
}

// Anyone who reads CloudEvents reads ours: these names are those of the RocketMQ binding.
func TestMessageIsACloudEvent(t *testing.T) {
	t.Parallel()
	e := sample()
	m := wire.MessageOf(e)
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
	first, err := wire.EventOf(d)
	if err != nil {
		t.Fatal(err)
	}
	d.Offset++ // the same message, delivered once more
	again, err := wire.EventOf(d)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != again.ID || first.Type != "created" || first.Subject != "7" || first.Ordered() || !first.Time.Equal(d.Born) {
		t.Errorf("got %+v and %+v", first, again)
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ property, value, named string }{
		{"CE_id", "", ""},
		{"CE_specversion", "", ""}, {"CE_specversion", "2.0", ""}, {"CE_specversion", "0.3", "1.0"}, {"CE_specversion", "1.0 ", ""},
		{"CE_type", "", ""}, {"CE_type", "a\x00b", ""},
		{"CE_source", "", ""}, {"CE_source", "a\xff", ""}, {"CE_source", "a\u0085b", ""},
		{"CE_subject", "", ""}, {"CE_subject", "a\nb", ""}, {"CE_subject", "43", "CE_partitionkey"},
		{"CE_time", "yesterday", ""}, {"CE_sequence", "0", ""}, {"rf_previous", "-1", ""},
		{"CE_contenttype", "json", ""}, {"CE_contenttype", "application/json; charset", ""}, {"CE_contenttype", "application json", ""},
		{"CE_datacontenttype", "text/plain", "twice"}, // beside CE_contenttype
		{"CE_dataschema", "a\x7f", ""}, {"CE_traceparent", "a\ufffe", ""}, {"CE_data", "{}", ""},
		{"rf_db", "\x01", ""}, {"rf_timeout_key", "a", "rf_timeout_name"}, {"rf_timeout_name", "a", ""},
		// Attributes that we would overlook.
		{"CE_Type", "order.paid", "CE_type"}, {"ce_id", "7", "CE_id"}, {"Ce_Source", "x", "CE_source"}, {"ce-subject", "x", "CE_subject"},
		{"CE_ContentType", "text/plain", "CE_contenttype"}, {"CE_dataContentType", "text/plain", "CE_datacontenttype"},
		// Formats that aren't read.
		{"CE_contenttype", "application/cloudevents-batch+json", "batch"}, {"CE_contenttype", "application/cloudevents+avro", "application/cloudevents+json"},
		{"CE_contenttype", "application/cloudevents", ""},
	} {
		m := wire.MessageOf(sample())
		m.Properties[c.property] = c.value
		e, err := wire.EventOf(broker.Delivery{Message: m})
		if !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), cmp.Or(c.named, c.property)) {
			t.Errorf("%s=%q: got %v", c.property, c.value, err)
		}
		if e.Headers[c.property] != c.value || string(e.Body) != string(m.Body) || e.Ordered() || e.TimeoutName != "" {
			t.Errorf("%s=%q: the dead letter doesn't hold the message: %+v", c.property, c.value, e)
		}
		// Retried as it is, it isn't handled half.
		if _, err := wire.DecodeBody[map[string]any](e); !wire.Undecoded(e) || !errors.Is(err, rocketflow.ErrUndecodable) {
			t.Errorf("%s=%q: what could not be read is decoded: %v", c.property, c.value, err)
		}
	}
}

// Anything else that begins with CE_ or ce is an extension, or a header.
// A message whose body the driver could not read is no event, whatever its properties say, and the error has the reason.
func TestUnreadableBodyIsUndecodable(t *testing.T) {
	t.Parallel()
	reason := errors.New("decompressed body is too long")
	for _, props := range []map[string]string{{}, {"CE_id": "1", "CE_source": "s", "CE_type": "t", "CE_specversion": "1.0"}} {
		d := broker.Delivery{Message: broker.Message{ID: "A", Topic: "topic", Tag: "tag", Properties: props, Body: []byte("compressed")}, Unreadable: reason}
		e, err := wire.EventOf(d)
		if !errors.Is(err, rocketflow.ErrUndecodable) || !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
		if !wire.Undecoded(e) || string(e.Body) != "compressed" || e.Topic != "topic" {
			t.Errorf("the dead letter has %+v", e)
		}
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	m := wire.MessageOf(sample())
	maps.Copy(m.Properties, map[string]string{
		"CE_traceparent": "00-1", "CE_my_ext": "a%20b", "CE_myExt": "x", "CE_": "?", "ce_custom": "y", "ce-custom": "z", "cellar": "w", "CE_empty": "",
		"CE_dataschema": "schema", "UNIQ_KEY": "k",
	})
	e, err := wire.EventOf(broker.Delivery{Message: m})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"traceparent": "00-1", "my_ext": "a%20b", "myExt": "x"}; !maps.Equal(e.Extensions, want) {
		t.Errorf("extensions %v, want %v", e.Extensions, want)
	}
	if want := map[string]string{"tenant": "acme", "ce_custom": "y", "ce-custom": "z", "cellar": "w"}; !maps.Equal(e.Headers, want) {
		t.Errorf("headers %v, want %v", e.Headers, want)
	}
	if e.DataSchema != "schema" {
		t.Errorf("schema %q", e.DataSchema)
	}
}

// CloudEvents that say no more than they must, and names that CloudEvents and its binding give the content type.
func TestOptionalAttributes(t *testing.T) {
	t.Parallel()
	born := time.Unix(5, 0)
	d := broker.Delivery{Born: born, Message: broker.Message{Topic: "orders", Body: []byte("x"), Properties: map[string]string{
		"CE_id": "7", "CE_type": "t", "CE_source": "s", "CE_specversion": "1.0",
	}}}
	if e, err := wire.EventOf(d); err != nil || e.ContentType != "application/json" || !e.Time.Equal(born) || e.Subject != "" || e.Ordered() {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, name := range []string{"CE_contenttype", "CE_contentType", "CE_datacontenttype"} {
		c := d
		c.Properties = maps.Clone(d.Properties)
		c.Properties[name] = "text/plain"
		if e, err := wire.EventOf(c); err != nil || e.ContentType != "text/plain" || len(e.Extensions) != 0 {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
	for _, body := range []string{"", "\x00"} {
		d.Body = []byte(body)
		if e, err := wire.EventOf(d); err != nil || len(e.Body) != 0 {
			t.Errorf("%q: got %q, %v", body, e.Body, err)
		}
	}
}

// What belongs to rocketflow is no header of a message that is no CloudEvent.
func TestForeignMessageWithReservedPropertiesIsUndecodable(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*broker.Message){
		"rf_timeout_name": func(m *broker.Message) { m.Properties = map[string]string{"rf_timeout_name": "x"} },
		"TAGS":            func(m *broker.Message) { m.Tag = "a\xff" },
		"SHARDING_KEY":    func(m *broker.Message) { m.ShardingKey = "a\x00" },
		"KEYS":            func(m *broker.Message) { m.Keys = []string{"\u0085"} },
		"CE_specversion":  func(m *broker.Message) { m.Properties = map[string]string{"CE_type": "x"} },
	} {
		m := broker.Message{Topic: "orders", Tag: "created", Body: []byte("x")}
		edit(&m)
		if e, err := wire.EventOf(broker.Delivery{Message: m}); !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), name) || !wire.Undecoded(e) {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
}

// Errors show what a message holds cut, on one line and without control characters.
func TestUndecodableIsShort(t *testing.T) {
	t.Parallel()
	hostile := strings.Repeat("\u202e\x1b[2J\u009b\n\xff", 2000)
	for name := range wire.MessageOf(sample()).Properties {
		m := wire.MessageOf(sample())
		m.Properties[name] = hostile
		_, err := wire.EventOf(broker.Delivery{Message: m})
		if name == "tenant" { // a header is any bytes
			continue
		}
		if err == nil || !isPrintable(err.Error()) {
			t.Errorf("%s: %d bytes: %.200q", name, len(err.Error()), err)
		}
	}
	m := wire.MessageOf(sample())
	m.Properties["CE_"+hostile] = hostile
	if _, err := wire.EventOf(broker.Delivery{Message: m}); err == nil || !isPrintable(err.Error()) {
		t.Errorf("a name: %.200q", err)
	}
}

// isPrintable reports whether an error's text can be printed on a terminal.
func isPrintable(s string) bool {
	return len(s) < 5000 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
}

// derived returns the id of a CloudEvent whose own is no UUID.
func derived(t *testing.T, source, id string) uuid.UUID {
	t.Helper()
	e, err := wire.EventOf(broker.Delivery{Message: broker.Message{Properties: map[string]string{
		"CE_id": id, "CE_type": "t", "CE_source": source, "CE_specversion": "1.0",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

type paid struct {
	Order string `json:"order"`
}

func (p paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.captured", Subject: p.Order}
}

func TestNewEventAndDecode(t *testing.T) {
	t.Parallel()
	e, err := wire.NewEvent(paid{"42"})
	if err != nil {
		t.Fatal(err)
	}
	if e.ID.Version() != 7 || e.Subject != "42" || string(e.Body) != `{"order":"42"}` {
		t.Errorf("got %+v", e)
	}
	if p, err := wire.DecodeBody[paid](e); err != nil || p.Order != "42" {
		t.Errorf("got %+v, %v", p, err)
	}
	for name, edit := range map[string]func(*rocketflow.Event){
		"body":           func(e *rocketflow.Event) { e.Body = []byte("{") },
		"no data":        func(e *rocketflow.Event) { e.Body = nil },
		"null":           func(e *rocketflow.Event) { e.Body = []byte(" null\n") },
		"invalid UTF-8":  func(e *rocketflow.Event) { e.Body = []byte("{\"order\":\"\xff\"}") },
		"long number":    func(e *rocketflow.Event) { e.Body = []byte(`{"order":` + strings.Repeat("1", 1<<20) + "}") },
		"content type":   func(e *rocketflow.Event) { e.ContentType = "application/protobuf" },
		"no media type":  func(e *rocketflow.Event) { e.ContentType = "json" },
		"charset":        func(e *rocketflow.Event) { e.ContentType = "application/json; charset=utf-16" },
		"charset, latin": func(e *rocketflow.Event) { e.ContentType = "application/json; charset=ISO-8859-1" },
		"json in a name": func(e *rocketflow.Event) { e.ContentType = "application/jsonlines" },
	} {
		bad := e
		edit(&bad)
		if _, err := wire.DecodeBody[paid](bad); !errors.Is(err, rocketflow.ErrUndecodable) || !isPrintable(err.Error()) {
			t.Errorf("%s: got %.2000v", name, err)
		}
	}
	// Reports of CloudEvents' SDKs: case and parameters don't matter (RFC 2045), and +json is JSON.
	for _, contentType := range []string{
		"", "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", `Application/JSON; charset="utf-8"`, "text/json",
		"application/vnd.acme.note+json", "application/problem+JSON; charset=us-ascii; v=1",
	} {
		e.ContentType = contentType
		if p, err := wire.DecodeBody[paid](e); err != nil || p.Order != "42" {
			t.Errorf("%s: got %+v, %v", contentType, p, err)
		}
	}
	e.Body = append([]byte("\xEF\xBB\xBF"), e.Body...)
	if p, err := wire.DecodeBody[paid](e); err != nil || p.Order != "42" {
		t.Errorf("with a byte order mark: got %+v, %v", p, err)
	}
	e.Body = []byte("null")
	if p, err := wire.DecodeBody[*paid](e); err != nil || p != nil {
		t.Errorf("null as a pointer: got %+v, %v", p, err)
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
		d := broker.Delivery{Message: wire.MessageOf(sample()), Broker: "a", Queue: 1, Offset: 5}
		id := d.Properties["CE_id"]
		edit(&d)
		e, err := wire.EventOf(d)
		if !errors.Is(err, rocketflow.ErrUndecodable) {
			t.Errorf("%s: got %v", name, err)
		}
		if again, _ := wire.EventOf(d); again.ID != e.ID {
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
			m := wire.MessageOf(sample())
			m.Properties["CE_id"], m.Properties["CE_source"] = text, source
			e, err := wire.EventOf(broker.Delivery{Message: m})
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if got := wire.MessageOf(e).Properties["CE_id"]; got != text {
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
