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

// NewEvent makes the event of a payload: a new id, the encoded body, nothing that a database assigns. It returns a
// *rocketflow.FieldError for a meta that can't be published.
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

// DecodeBody reads the body of e, which is JSON by its content type, into a T. What can't be read matches rocketflow.ErrUndecodable: also
// a message that EventOf could not read, an event without data, and null for a T that is never nil, as both would look like a T whose fields are all zero.
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

func takesNull[T any]() bool {
	switch reflect.TypeFor[T]().Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return true
	}
	_, own := any(new(T)).(json.Unmarshaler)
	return own
}
