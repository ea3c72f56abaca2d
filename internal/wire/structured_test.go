package wire_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// structuredMessage is a message of another producer in structured mode.
func structuredMessage(body string) broker.Delivery {
	return broker.Delivery{Born: time.Unix(5, 0), Message: broker.Message{
		ID: "AC11", Topic: "orders", Tag: "x", Body: []byte(body),
		Properties: map[string]string{"CE_contenttype": "application/cloudevents+json; charset=UTF-8", "tenant": "acme"},
	}}
}

func TestStructured(t *testing.T) {
	t.Parallel()
	e, err := wire.EventOf(structuredMessage(`{
		"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.placed", "subject": "42 é", "time": "2026-11-21T05:34:21Z",
		"datacontenttype": "application/json", "dataschema": "https://example.com/s", "comexampleflag": true, "comexamplecount": -7,
		"traceparent": "00-1", "gone": null, "data": { "a" : [1, "\u00e9"] } }`))
	if err != nil {
		t.Fatal(err)
	}
	if e.OriginalID != "A-1" || e.ID != derived(t, "/shop", "A-1") || e.Source != "/shop" || e.Type != "order.placed" || e.Subject != "42 é" ||
		e.Topic != "orders" || e.ContentType != "application/json" || e.DataSchema != "https://example.com/s" || e.Ordered() ||
		!e.Time.Equal(time.Date(2026, 11, 21, 5, 34, 21, 0, time.UTC)) || string(e.Body) != `{ "a" : [1, "\u00e9"] }` {
		t.Errorf("got %+v", e)
	}
	if want := map[string]string{"comexampleflag": "true", "comexamplecount": "-7", "traceparent": "00-1"}; !maps.Equal(e.Extensions, want) {
		t.Errorf("extensions %v, want %v", e.Extensions, want)
	}
	if want := map[string]string{"tenant": "acme"}; !maps.Equal(e.Headers, want) {
		t.Errorf("headers %v, want %v", e.Headers, want)
	}
	// In the other mode it is the same.
	again, err := wire.EventOf(broker.Delivery{Message: wire.MessageOf(e)})
	if err != nil || again.ID != e.ID || !maps.Equal(again.Extensions, e.Extensions) || string(again.Body) != string(e.Body) {
		t.Errorf("in binary mode: got %+v, %v", again, err)
	}
}

func member(more string) string {
	return `{"specversion":"1.0","id":"1","source":"s","type":"t"` + more + `}`
}

func TestStructuredData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ members, contentType, body string }{
		{``, "application/json", ""},
		{`,"data":null`, "application/json", ""},
		{`,"data":"text"`, "application/json", `"text"`},
		{`,"data":17`, "application/json", `17`},
		{`,"datacontenttype":"application/vnd.a+json; charset=utf-8","data":[]`, "application/vnd.a+json; charset=utf-8", `[]`},
		{`,"datacontenttype":"text/xml","data":"<a b=\"c\"/>"`, "text/xml", `<a b="c"/>`},
		{`,"datacontenttype":"text/plain","data":""`, "text/plain", ""},
		{`,"datacontenttype":"image/png","data_base64":"AP8="`, "image/png", "\x00\xff"},
		{`,"data_base64":"e30="`, "application/json", `{}`},
		{`,"data_base64":"AA=="`, "application/json", "\x00"},
	} {
		e, err := wire.EventOf(structuredMessage(member(c.members)))
		if err != nil || e.ContentType != c.contentType || string(e.Body) != c.body {
			t.Errorf("%s: got %q, %q, %v", c.members, e.ContentType, e.Body, err)
		}
	}
}

// A structured message is understood whole, or it is a dead letter that says what of it was not.
func TestStructuredUndecodable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, named string }{
		{``, "JSON object"}, {"\x00", "JSON object"}, {`[]`, "JSON object"}, {`[` + member("") + `]`, "JSON object"}, {`"x"`, "JSON object"}, {`{"id":`, "no JSON"},
		{member("") + "x", "behind"}, {member("") + member(""), "behind"}, {member("") + "\xff", "UTF-8"}, {member(`,`), "no JSON"},
		{`{"id":"1","source":"s","type":"t"}`, "specversion"}, {`{"specversion":"0.3","id":"1","source":"s","type":"t"}`, "specversion"},
		{`{"specversion":"1.0","source":"s","type":"t"}`, "id"}, {`{"specversion":"1.0","id":"1","type":"t"}`, "source"},
		{`{"specversion":"1.0","id":"1","source":"s"}`, "type"}, {`{"specversion":1.0,"id":"1","source":"s","type":"t"}`, "specversion"},
		{`{"specversion":"1.0","id":null,"source":"s","type":"t"}`, "id"}, {`{"specversion":"1.0","id":{},"source":"s","type":"t"}`, "id"},
		{member(`,"id":"2"`), "twice"}, {member(`,"\u0069d":"2"`), "twice"}, {member(`,"ID":"2"`), "name"}, {member(`,"Data":{}`), "data"},
		{member(`,"time":"yesterday"`), "time"}, {member(`,"time":""`), "time"}, {member(`,"subject":"a\u0000"`), "subject"},
		{member(`,"subject":"\ud800"`), "subject"}, {member(`,"datacontenttype":"json"`), "datacontenttype"},
		{member(`,"ext":{"a":1}`), "ext"}, {member(`,"ext":[1]`), "ext"}, {member(`,"ext":1.5`), "ext"}, {member(`,"ext":1e3`), "ext"}, {member(`,"ext":""`), "ext"},
		{member(`,"contenttype":"x"`), "contenttype"}, {member(`,"datacontenttype":"application/cloudevents+json"`), "datacontenttype"}, {member(`,"data":1,"data_base64":"AA=="`), "data_base64"},
		{member(`,"data_base64":"?"`), "data_base64"}, {member(`,"data_base64":"AA"`), "data_base64"}, {member(`,"data_base64":1`), "data_base64"},
		{member(`,"datacontenttype":"text/plain","data":{"a":1}`), "data"}, {member(`,"datacontenttype":"text/plain","data":"\ud800"`), "surrogate"},
		{strings.Repeat("[", 1<<20), "JSON object"}, {member(`,"data":` + strings.Repeat("[", 1<<20)), "no JSON"},
		{member(`,"` + strings.Repeat("\u202e", 1<<18) + `":{}`), "string"}, {member(`,"ext":"` + strings.Repeat("\u009b", 1<<18) + `"`), "ext"},
	} {
		d := structuredMessage(c.body)
		e, err := wire.EventOf(d)
		if !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), c.named) || !isPrintable(err.Error()) {
			t.Errorf("%.200s: got %.500v", c.body, err)
			continue
		}
		if string(e.Body) != c.body || e.Headers["CE_contenttype"] != d.Properties["CE_contenttype"] || e.Topic != "orders" {
			t.Errorf("%.200s: the dead letter doesn't hold the message", c.body)
		}
	}
	for name, value := range map[string]string{
		"CE_contenttype": "application/cloudevents+json; charset=utf-16", "CE_id": "2", "CE_subject": "x", "CE_ext": "x", "CE_specversion": "0.3",
		"rf_previous": "0", "rf_timeout_name": "x", "rf_db": "x",
	} {
		d := structuredMessage(member(""))
		d.Properties[name] = value
		if e, err := wire.EventOf(d); !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: got %+v, %v", name, value, e, err)
		}
	}
	// The binding allows to repeat attributes as properties.
	d := structuredMessage("\xEF\xBB\xBF" + member(`,"ext":1`))
	d.Properties["CE_id"], d.Properties["CE_ext"], d.Properties["CE_specversion"] = "1", "1", "1.0"
	if _, err := wire.EventOf(d); err != nil {
		t.Error(err)
	}
}
