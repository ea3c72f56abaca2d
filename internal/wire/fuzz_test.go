package wire_test

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// checkRead holds what EventOf promises of any message.
func checkRead(t *testing.T, d broker.Delivery) {
	t.Helper()
	if d.Born.IsZero() {
		d.Born = time.Unix(5, 0) // each message has it
	}
	e, err := wire.EventOf(d)
	if y := e.Time.UTC().Year(); y < 1 || y > 9999 {
		t.Errorf("time in the year %d", y)
	}
	if err != nil {
		if !errors.Is(err, rocketflow.ErrUndecodable) || !isPrintable(err.Error()) {
			t.Errorf("error %.300q", err)
		}
		if e.Ordered() || e.ID == uuid.Nil || e.TimeoutName != "" || len(e.Extensions) > 0 || string(e.Body) != string(d.Body) {
			t.Errorf("no dead letter: %+v", e)
		}
		return
	}
	if e.ID == uuid.Nil || e.Sequence < 0 || e.Previous < 0 || e.Sequence > rocketflow.MaxSequence || e.Ordered() && (e.Previous >= e.Sequence || e.Subject == "") {
		t.Errorf("event %+v", e)
	}
	for _, s := range []string{e.OriginalID, e.Type, e.Source, e.Subject, e.DataSchema, e.ContentType, e.Database, e.TimeoutKey, e.TimeoutName} {
		if !utf8.ValidString(s) {
			t.Errorf("%q is no text", s)
		}
	}
	if e.Source == "" { // no CloudEvent
		return
	}
	// What was read is written so that it is read the same.
	again, err := wire.EventOf(broker.Delivery{Message: wire.MessageOf(e), Born: time.Unix(9, 0)})
	e.Time, again.Time = e.Time.UTC(), again.Time.UTC()
	e.Topic = again.Topic
	if len(e.Body) == 0 {
		e.Body = nil
	}
	if err != nil || !reflect.DeepEqual(e, again) {
		t.Errorf("%+v became %+v, %v", e, again, err)
	}
}

func FuzzEventOf(f *testing.F) {
	for _, v := range []string{"", "1.0", "1795239261468301", "2026-11-21T05:34:21.471409Z", "\x01", "text/plain; charset=x", "CE_Type", "%41"} {
		f.Add(v, v, v, v, v, v, v, v, []byte(v), int64(len(v))<<55)
	}
	f.Fuzz(func(t *testing.T, id, spec, typ, at, sequence, previous, contentType, name string, body []byte, born int64) {
		m := wire.MessageOf(sample())
		maps.Copy(m.Properties, map[string]string{
			"CE_id": id, "CE_specversion": spec, "CE_type": typ, "CE_time": at, "CE_sequence": sequence, "rf_previous": previous, "CE_contenttype": contentType,
		})
		m.Properties[name] = id
		m.Body = body
		checkRead(t, broker.Delivery{Message: m, Born: time.UnixMilli(born)})
		delete(m.Properties, "rf_previous")
		delete(m.Properties, "rf_db")
		m.Properties["CE_specversion"] = "1.0"
		checkRead(t, broker.Delivery{Message: m})
	})
}

func FuzzStructured(f *testing.F) {
	for _, more := range []string{"", `,"data":{"a":[null]}`, `,"data_base64":"AA=="`, `,"ext":-1`, `,"datacontenttype":"text/plain","data":"\ud83d\ude00"`, `,"id":"2"`} {
		f.Add([]byte(member(more)))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkRead(t, structuredMessage(string(body))) })
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"order":"42"}`, "null", "", "\xEF\xBB\xBF{}", `{"order":1}`, `{"order":"\ud800"}`} {
		f.Add([]byte(s), "application/json; charset=utf-8")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		_, err := wire.DecodeBody[paid](rocketflow.Event{Type: "t", Body: body, ContentType: contentType})
		if err != nil && (!errors.Is(err, rocketflow.ErrUndecodable) || !isPrintable(err.Error())) {
			t.Errorf("error %.300q", err)
		}
		if err == nil && !json.Valid(body) && len(body) > 2 && body[0] != 0xEF {
			t.Errorf("%q was decoded", body)
		}
	})
}

// What Validate accepts is read as it was, whatever it is.
func FuzzRoundTrip(f *testing.F) {
	f.Add("order", "order.placed", "42", "application/json", "https://example.com/s", "ext", "v", "tenant", "acme", []byte("{}"))
	f.Add("urn:x", "t", "", "", "", "", "", "", "", []byte{0})
	f.Fuzz(func(t *testing.T, source, typ, subject, contentType, schema, extension, value, header, text string, body []byte) {
		e := sample()
		e.Source, e.Type, e.Subject, e.ContentType, e.DataSchema, e.Body = source, typ, subject, contentType, schema, body
		e.Extensions, e.Headers = map[string]string{extension: value}, map[string]string{header: text}
		if subject == "" {
			e.Sequence, e.Previous = 0, 0
		}
		if wire.Validate(e) != nil || source == "" {
			return
		}
		got, err := wire.EventOf(broker.Delivery{Message: wire.MessageOf(e)})
		if e.ContentType == "" {
			e.ContentType = rocketflow.ContentTypeJSON
		}
		if len(e.Body) == 0 {
			e.Body = nil
		}
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v became %+v, %v", e, got, err)
		}
	})
}
