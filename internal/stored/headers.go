// Package stored converts between events and the columns of the tables that store them (outbox, parked events, timeouts), so
// that all of these tables have the same format: Headers and SetHeaders for the jsonb column that holds headers and
// attributes, Body for the body, Digest for the column by which two copies of an event are compared.
package stored

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Names of members of the jsonb column. Headers have their own names, which never begin with these prefixes. The headers of a
// message that could not be decoded may have any name, so they are members of the object undecoded.
const (
	prefixAttribute = "CE_"
	originalID      = prefixAttribute + "id"
	dataSchema      = prefixAttribute + "dataschema"
	undecoded       = "rf_undecoded"
)

// Headers returns the text of the jsonb column: the event's headers and the CloudEvents attributes that have no column of
// their own. It returns nil if there are none.
func Headers(e rocketflow.Event) (*string, error) {
	column := make(map[string]any, len(e.Headers)+len(e.Extensions))
	headers := make(map[string]any, len(e.Headers))
	for name, value := range e.Headers {
		headers[nameOf(name)] = valueOf(value)
	}
	switch {
	case wire.Undecoded(e):
		column[undecoded] = headers
	default:
		column = headers
	}
	for name, value := range e.Extensions {
		column[prefixAttribute+nameOf(name)] = valueOf(value)
	}
	if e.DataSchema != "" {
		column[dataSchema] = valueOf(e.DataSchema)
	}
	if e.OriginalID != "" {
		column[originalID] = valueOf(e.OriginalID)
	}
	if len(column) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(column)
	if err != nil {
		return nil, fmt.Errorf("encode headers of event %s: %w", e.ID, err)
	}
	s := string(text)
	return &s, nil
}

// SetHeaders sets the headers and attributes of an event from its jsonb column, which may be nil or empty.
func SetHeaders(e *rocketflow.Event, column []byte) error {
	if len(column) == 0 {
		return nil
	}
	bad := func(err error) error { return fmt.Errorf("decode headers of event %s: %w", e.ID, err) }
	var all map[string]json.RawMessage
	if err := json.Unmarshal(column, &all); err != nil {
		return bad(err)
	}
	headers := all
	if nested, ok := all[undecoded]; ok {
		headers = nil
		if err := json.Unmarshal(nested, &headers); err != nil {
			return bad(err)
		}
		delete(all, undecoded)
	}
	set := func(m *map[string]string, name, value string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[name] = value
	}
	for name, raw := range all {
		if !strings.HasPrefix(name, prefixAttribute) {
			continue
		}
		value, err := valueFrom(raw)
		if err != nil {
			return bad(err)
		}
		switch name {
		case originalID:
			e.OriginalID = value
		case dataSchema:
			e.DataSchema = value
		default:
			set(&e.Extensions, strings.TrimPrefix(name, prefixAttribute), value)
		}
		delete(all, name)
	}
	for name, raw := range headers {
		value, err := valueFrom(raw)
		if err != nil {
			return bad(err)
		}
		set(&e.Headers, name, value)
	}
	return nil
}

// encoded is a value that jsonb can't hold as a string: properties of other producers may be any bytes.
type encoded struct {
	Base64 []byte `json:"base64"`
}

// valueOf returns s as a value of JSON.
func valueOf(s string) any {
	if utf8.ValidString(s) && !strings.ContainsRune(s, 0) {
		return s
	}
	return encoded{[]byte(s)}
}

// valueFrom returns the string of a valueOf.
func valueFrom(raw json.RawMessage) (string, error) {
	if len(raw) > 0 && raw[0] == '{' {
		var b encoded
		err := json.Unmarshal(raw, &b)
		return string(b.Base64), err
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// nameOf replaces what jsonb can't hold in a name.
func nameOf(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Body returns the body of an event for its column, which is not null: an event without data has an empty body.
func Body(e rocketflow.Event) []byte {
	if e.Body == nil {
		return []byte{}
	}
	return e.Body
}
