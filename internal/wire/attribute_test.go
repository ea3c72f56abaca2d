package wire_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

func TestValidateSource(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"order", "/order", "//example.com/order", "https://example.com/order?x=1#y", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
		"mailto:a@example.com", "a%20b", "http://[::1]:80/x", "../x", "?q", "#f", strings.Repeat("a", rocketflow.MaxSource),
	} {
		if err := wire.ValidateSource("Source", s); err != nil {
			t.Errorf("%v", err)
		}
	}
	for _, s := range []string{
		"", "order service", "a\tb", "a\x00b", "bestellung\u00fc", "a%2", "a%zz", "a\\b", "{a}", "a|b", "<a>", `"a"`, "a^b", "`", "#a#b", "a[b]",
		":a", "1a:b", "http://[::1", "http://a:b/", "\xff", strings.Repeat("a", rocketflow.MaxSource+1),
	} {
		var field *rocketflow.FieldError
		if err := wire.ValidateSource("outbox.Config.Source", s); !errors.As(err, &field) || field.Field != "outbox.Config.Source" {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

// What is published is a valid CloudEvent.
func TestValidate(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*rocketflow.Event){
		"no source yet":     func(e *rocketflow.Event) { e.Source = "" },
		"no content type":   func(e *rocketflow.Event) { e.ContentType = "" },
		"parameter":         func(e *rocketflow.Event) { e.ContentType = `text/plain; charset="utf-8"` },
		"schema":            func(e *rocketflow.Event) { e.DataSchema = "https://example.com/a#b" },
		"extension":         func(e *rocketflow.Event) { e.Extensions = map[string]string{"a1": "v \u00e9"} },
		"order's own, free": func(e *rocketflow.Event) { e.Subject, e.Extensions = "", map[string]string{"sequence": "A"} },
		"no data":           func(e *rocketflow.Event) { e.Body = nil },
		"header":            func(e *rocketflow.Event) { e.Headers = map[string]string{"ce-tenant": "x", "ce.id": "x"} },
	} {
		e := sample()
		edit(&e)
		if err := wire.Validate(e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*rocketflow.Event){
		"source":                   func(e *rocketflow.Event) { e.Source = "my service" },
		"content type word":        func(e *rocketflow.Event) { e.ContentType = "json" },
		"content type parts":       func(e *rocketflow.Event) { e.ContentType = "a/b/c" },
		"content type space":       func(e *rocketflow.Event) { e.ContentType = "application json" },
		"content type parameter":   func(e *rocketflow.Event) { e.ContentType = "text/plain; charset" },
		"content type twice":       func(e *rocketflow.Event) { e.ContentType = "text/plain; a=1; a=2" },
		"content type long":        func(e *rocketflow.Event) { e.ContentType = "text/" + strings.Repeat("x", 255) },
		"content type structured":  func(e *rocketflow.Event) { e.ContentType = "Application/CloudEvents+json; charset=utf-8" },
		"content type batch":       func(e *rocketflow.Event) { e.ContentType = "application/cloudevents-batch+json" },
		"subject C1":               func(e *rocketflow.Event) { e.Subject = "a\u0085" },
		"subject noncharacter":     func(e *rocketflow.Event) { e.Subject = "a\ufffe" },
		"subject invalid":          func(e *rocketflow.Event) { e.Subject = "a\xff" },
		"data schema relative":     func(e *rocketflow.Event) { e.DataSchema = "schema/1" },
		"data schema no URI":       func(e *rocketflow.Event) { e.DataSchema = "https://example.com/a b" },
		"extensions upper case":    func(e *rocketflow.Event) { e.Extensions = map[string]string{"myExt": "v"} },
		"extensions underscore":    func(e *rocketflow.Event) { e.Extensions = map[string]string{"my_ext": "v"} },
		"extensions empty name":    func(e *rocketflow.Event) { e.Extensions = map[string]string{"": "v"} },
		"extensions attribute":     func(e *rocketflow.Event) { e.Extensions = map[string]string{"id": "v"} },
		"extensions data":          func(e *rocketflow.Event) { e.Extensions = map[string]string{"data": "v"} },
		"extensions content type":  func(e *rocketflow.Event) { e.Extensions = map[string]string{"contenttype": "v"} },
		"extensions order's own":   func(e *rocketflow.Event) { e.Extensions = map[string]string{"partitionkey": "v"} },
		"extensions empty":         func(e *rocketflow.Event) { e.Extensions = map[string]string{"a": ""} },
		"extensions control":       func(e *rocketflow.Event) { e.Extensions = map[string]string{"a": "\x01"} },
		"headers value":            func(e *rocketflow.Event) { e.Headers = map[string]string{"a": "\u009b"} },
		"headers with extensions":  func(e *rocketflow.Event) { e.Extensions = map[string]string{"a": strings.Repeat("x", 17<<10)} },
		"property of an attribute": func(e *rocketflow.Event) { e.Headers = map[string]string{"CE_x": "v"} },
		"property like CE_":        func(e *rocketflow.Event) { e.Headers = map[string]string{"ce_x": "v"} },
		"property like ce-":        func(e *rocketflow.Event) { e.Headers = map[string]string{"ce-ID": "v"} },
		"property of rocketflow":   func(e *rocketflow.Event) { e.Headers = map[string]string{"rf_x": "v"} },
		"property of RocketMQ":     func(e *rocketflow.Event) { e.Headers = map[string]string{"TRAN_MSG": "v"} },
	} {
		e := sample()
		edit(&e)
		err := wire.Validate(e)
		var field *rocketflow.FieldError
		var reserved *broker.ReservedPropertyError
		switch {
		case strings.HasPrefix(name, "property"):
			if !errors.As(err, &reserved) {
				t.Errorf("%s: got %v", name, err)
			}
		case !errors.As(err, &field) || !strings.HasPrefix(name, field.Field):
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Times as the producers of other languages write them.
func TestTimes(t *testing.T) {
	t.Parallel()
	at := func(s string) (rocketflow.Event, error) {
		m := wire.MessageOf(sample())
		m.Properties["CE_time"] = s
		return wire.EventOf(broker.Delivery{Message: m})
	}
	for s, want := range map[string]time.Time{
		"2026-11-21T05:34:21Z":                time.Date(2026, 11, 21, 5, 34, 21, 0, time.UTC),
		"2026-11-21T05:34:21.123456789Z":      time.Date(2026, 11, 21, 5, 34, 21, 123456789, time.UTC),
		"2026-11-21T05:34:21.1234567891234Z":  time.Date(2026, 11, 21, 5, 34, 21, 123456789, time.UTC),
		"2026-11-21t05:34:21z":                time.Date(2026, 11, 21, 5, 34, 21, 0, time.UTC),
		"2026-11-21T05:34:21+08:00":           time.Date(2026, 11, 20, 21, 34, 21, 0, time.UTC),
		"2026-11-21T05:34:21-00:00":           time.Date(2026, 11, 21, 5, 34, 21, 0, time.UTC),
		"2016-12-31T23:59:60Z":                time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC),
		"2016-12-31T15:59:60.25-08:00":        time.Date(2017, 1, 1, 0, 0, 0, 250000000, time.UTC),
		"0001-01-01T00:00:00Z":                time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
		"9999-12-31T23:59:59.999999999+00:00": time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		if e, err := at(s); err != nil || !e.Time.Equal(want) {
			t.Errorf("%s: got %v, %v; want %v", s, e.Time, err, want)
		}
	}
	for _, s := range []string{
		"2026-11-21T05:34:21", "2026-11-21 05:34:21Z", "2026-11-21", "1795239261", "2026-11-21T5:34:21Z", "2026-11-21T05:34:21,5Z",
		"2026-11-21T05:34:61Z", "2026-11-21T24:00:00Z", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00",
		"9999-12-31T23:59:60Z", "12026-11-21T05:34:21Z", "Sat, 21 Nov 2026 05:34:21 GMT", "2026-11-21T05:34:21Z ", "2026-11-21T05:34Z",
	} {
		if e, err := at(s); !errors.Is(err, rocketflow.ErrUndecodable) || !strings.Contains(err.Error(), "CE_time") {
			t.Errorf("%s: got %v, %v", s, e.Time, err)
		}
	}
}

func TestSequences(t *testing.T) {
	t.Parallel()
	read := func(previous, sequence string) (rocketflow.Event, error) {
		m := wire.MessageOf(sample())
		m.Properties["rf_previous"], m.Properties["CE_sequence"] = previous, sequence
		return wire.EventOf(broker.Delivery{Message: m})
	}
	for _, s := range [][2]string{{"0", "1"}, {"1", "2"}, {"253402300799999998", "253402300799999999"}} {
		if _, err := read(s[0], s[1]); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
	for _, s := range [][2]string{
		{"0", "0"}, {"0", ""}, {"2", "1"}, {"1", "1"}, {"-1", "1"}, {"-2", "-1"}, {"0", "253402300800000000"}, {"0", "9223372036854775807"},
		{"0", "9223372036854775808"}, {"0", "+1"}, {"0", "01"}, {"00", "1"}, {"0", "1.0"}, {"0", "1e3"}, {"0", " 1"}, {"0", "0x1"}, {"0", "1_0"}, {"", "1"}, {"a", "1"},
	} {
		if e, err := read(s[0], s[1]); !errors.Is(err, rocketflow.ErrUndecodable) || e.Ordered() {
			t.Errorf("%v: got %+v, %v", s, e, err)
		}
	}
}
