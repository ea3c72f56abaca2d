package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// NewEvent returns the event of a payload, with a new id and the encoded body. Sequence, time and database are set when it
// is recorded. A payload that can't be published is a *rocketflow.FieldError.
func NewEvent(p rocketflow.Payload) (rocketflow.Event, error) {
	meta := p.EventMeta()
	id, err := uuid.NewV7()
	if err != nil {
		return rocketflow.Event{}, fmt.Errorf("draw event id: %w", err)
	}
	e := rocketflow.Event{
		ID: id, Topic: meta.Topic, Type: meta.Type, Subject: meta.Subject, ContentType: rocketflow.ContentTypeJSON,
		DataSchema: meta.DataSchema, Extensions: meta.Extensions, Headers: meta.Headers,
	}
	if raw, ok := p.(rocketflow.Event); ok {
		e.Body = raw.Body
		if raw.ContentType != "" {
			e.ContentType = raw.ContentType
		}
	} else if e.Body, err = json.Marshal(p); err != nil {
		return rocketflow.Event{}, valid.Wrap("body", "can't be encoded as JSON", err)
	}
	return e, Validate(e)
}

// DecodeBody decodes the JSON body of e. Errors match rocketflow.ErrUndecodable. It is an error if the content type isn't
// JSON, if EventOf could not read the message, or if the event has no data or null for a T that can't be nil: both would look
// like the zero value of T.
func DecodeBody[T any](e rocketflow.Event) (T, error) {
	var v T
	undecodable := func(err error) error {
		return printable.Error(fmt.Errorf("%w: %s as %T: %w", rocketflow.ErrUndecodable, e.Type, v, err), printable.Reason)
	}
	if Undecoded(e) {
		return v, undecodable(errors.New("the message could not be read"))
	}
	if json, utf8 := isJSON(cmp.Or(e.ContentType, rocketflow.ContentTypeJSON)); !json || !utf8 {
		return v, undecodable(fmt.Errorf("content type %s, want JSON in UTF-8", printable.Quote(e.ContentType, printable.Name)))
	}
	body := bytes.TrimPrefix(e.Body, []byte("\xEF\xBB\xBF")) // a byte order mark, which readers of JSON may ignore
	switch {
	case len(body) == 0:
		return v, undecodable(errors.New("the event has no data"))
	case !utf8.Valid(body): // encoding/json would put U+FFFD in the place of what is none
		return v, undecodable(errors.New("body is no UTF-8"))
	case bytes.Equal(bytes.TrimSpace(body), []byte("null")) && !takesNull[T]():
		return v, undecodable(errors.New("body is null"))
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, undecodable(err)
	}
	return v, nil
}

// takesNull reports whether null is a value of T.
func takesNull[T any]() bool {
	switch reflect.TypeFor[T]().Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return true
	}
	_, own := any(new(T)).(json.Unmarshaler)
	return own
}
