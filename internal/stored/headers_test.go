package stored_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// back returns an event that went through the column.
func back(t *testing.T, e rocketflow.Event) (rocketflow.Event, *string) {
	t.Helper()
	column, err := stored.Headers(e)
	if err != nil {
		t.Fatal(err)
	}
	got := e
	got.OriginalID, got.DataSchema, got.Extensions, got.Headers = "", "", nil, nil
	if column != nil {
		if err := stored.SetHeaders(&got, []byte(*column)); err != nil {
			t.Fatal(err)
		}
	}
	return got, column
}

func kinds() map[string]rocketflow.Event {
	full := sample()
	full.OriginalID, full.Extensions = "7 é", map[string]string{"a": "1", "my_ext": "2"}
	bare := sample()
	bare.DataSchema, bare.Extensions, bare.Headers = "", nil, nil
	bytes := bare
	bytes.Headers = map[string]string{"a": "\xff\x00", "b": `{"base64":"eA=="}`, "c": "\u202e"}
	m := wire.MessageOf(sample())
	delete(m.Properties, "CE_id")
	m.Properties["CE_\x01"], m.Properties["b"] = "\x00", "\xfe"
	unread, _ := wire.EventOf(broker.Delivery{Message: m})
	return map[string]rocketflow.Event{"full": full, "bare": bare, "bytes": bytes, "undecoded": unread}
}

func TestHeadersRoundTrip(t *testing.T) {
	t.Parallel()
	for name, e := range kinds() {
		got, column := back(t, e)
		if !reflect.DeepEqual(got, e) || stored.Digest(got) != stored.Digest(e) {
			t.Errorf("%s: %+v became %+v", name, e, got)
		}
		if (column == nil) != (name == "bare") {
			t.Errorf("%s: column %v", name, column)
		}
		if wire.Undecoded(got) != (name == "undecoded") {
			t.Errorf("%s: undecoded: %v", name, wire.Undecoded(got))
		}
	}
	if b := stored.Body(rocketflow.Event{}); b == nil || len(b) > 0 {
		t.Errorf("no data is %#v", b)
	}
	for _, column := range []string{"[]", `{"a":1}`, `{"rf_undecoded":[]}`, `{"CE_id":{"base64":"?"}}`, "{"} {
		e := sample()
		if err := stored.SetHeaders(&e, []byte(column)); err == nil || !strings.Contains(err.Error(), e.ID.String()) {
			t.Errorf("%s: got %v", column, err)
		}
	}
}

// Postgres takes the column, and gives back what stands for the same.
func TestPostgresAcceptsAllHeaders(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Schema(t)
	for name, e := range kinds() {
		_, column := back(t, e)
		var text []byte
		if err := pool.QueryRow(t.Context(), "SELECT $1::text::jsonb", column).Scan(&text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := e
		got.OriginalID, got.DataSchema, got.Extensions, got.Headers = "", "", nil, nil
		if err := stored.SetHeaders(&got, text); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%s: %+v became %+v, %v", name, e, got, err)
		}
	}
}

// A message that could not be read can be read again from what was stored of it: after an operator has edited it, say.
func TestUndecodedMessagesRoundTrip(t *testing.T) {
	t.Parallel()
	want := sample()
	m := wire.MessageOf(want)
	m.Properties["CE_time"] = "soon"
	e, err := wire.EventOf(broker.Delivery{Message: m})
	if err == nil {
		t.Fatal("decoded")
	}
	e, _ = back(t, e)
	m.Properties = maps.Clone(e.Headers)
	m.Properties["CE_time"] = "1970-01-01T00:00:01Z"
	if got, err := wire.EventOf(broker.Delivery{Message: m}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("tenant", "acme", "ext", "1", "id", "https://example.com")
	f.Add("CE_id", "\xff", "my_ext", "\x00", "\u2028", "")
	f.Add("a", "{", "base64", "{}", "", "x")
	f.Fuzz(func(t *testing.T, header, value, extension, text, id, schema string) {
		e := rocketflow.Event{ID: uuid.New(), OriginalID: id, DataSchema: schema, Headers: map[string]string{header: value}, Extensions: map[string]string{extension: text}}
		got, column := back(t, e)
		if column == nil || !json.Valid([]byte(*column)) || strings.Contains(*column, `\u0000`) && !strings.Contains(*column, `\\u0000`) {
			t.Fatalf("column %v", column)
		}
		if !utf8.ValidString(header) || !utf8.ValidString(extension) || strings.ContainsRune(header+extension, 0) || extension == "id" || extension == "dataschema" {
			return // names are made fit
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%+v became %+v", e, got)
		}
	})
}
