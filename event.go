package rocketflow

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Payload is the content of an event: any type that says where it belongs. A value method, so that the zero value
// tells Topic and Type to whoever registers a handler:
//
//	func (p OrderPlaced) EventMeta() rocketflow.Meta {
//		return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID.String()}
//	}
//
// It is encoded as JSON, unless it is an [Event], which carries its encoded Body itself.
type Payload interface {
	EventMeta() Meta
}

// Meta is what a payload says of itself.
type Meta struct {
	Topic   string // required
	Type    string // required, such as "order.placed"
	Subject string // the aggregate's id. Empty: the event belongs to no aggregate and has no order

	// Unordered takes an event with a subject out of its aggregate's order: it is handled as soon as it comes.
	Unordered bool

	// Headers travel with the event, as properties of the message. Names are letters, digits, _ - and dots; those that begin
	// with CE_ or rf_ and RocketMQ's own are refused.
	Headers map[string]string

	DataSchema string            // see [Event]
	Extensions map[string]string // see [Event]. Names are small letters and digits
}

// Event is one event as it was recorded and as handlers see it; on the wire it is a CloudEvent 1.0 in binary mode. What
// other producers send is read in structured mode, too.
type Event struct {
	// ID and Source identify an event. ID is a UUIDv7 for what rocketflow published. A CloudEvent of another producer whose
	// id is no UUID in its canonical form has an ID that is derived from source and id, and OriginalID holds the id. A
	// message that is no CloudEvent has an ID that is derived from its unique key.
	ID         uuid.UUID
	OriginalID string
	Type       string
	Source     string // the service that published it, a URI reference
	Topic      string
	Subject    string // the aggregate's id, or empty

	// Sequence rises strictly along the stream (Source, Topic, Subject); Previous is that of the event before, 0 for the
	// first. Sequence is also the time of recording in microseconds of the Unix epoch, by the publisher's database, or a
	// little more. Both are 0 for an event without order.
	Sequence int64
	Previous int64

	Time        time.Time // when it was recorded, by the publisher's database
	Database    string    // identifies the database that recorded it
	ContentType string    // of Body, a media type; default application/json
	DataSchema  string    // CloudEvents' dataschema: the URI of Body's schema, or empty

	// Extensions are the extension attributes of the CloudEvent, but for those that are fields here. Values are in the text
	// form of their CloudEvents type.
	Extensions map[string]string
	Headers    map[string]string // the properties of the message that are neither attributes nor RocketMQ's
	Body       []byte            // empty: the event has no data

	// TimeoutKey and TimeoutName name the timeout whose firing this event is, and then ID is its epoch. Empty otherwise.
	TimeoutKey, TimeoutName string
}

// Stream names an ordered sequence of events.
type Stream struct {
	Source, Topic, Subject string
}

// Stream returns the stream of e. It is the zero value for an event without order.
func (e Event) Stream() Stream {
	if !e.Ordered() {
		return Stream{}
	}
	return Stream{e.Source, e.Topic, e.Subject}
}

// Ordered tells whether e has a place in a stream.
func (e Event) Ordered() bool { return e.Sequence > 0 }

// EventMeta makes Event a Payload: publish one to choose the encoding yourself.
func (e Event) EventMeta() Meta {
	return Meta{Topic: e.Topic, Type: e.Type, Subject: e.Subject, Headers: e.Headers, DataSchema: e.DataSchema, Extensions: e.Extensions}
}

// ContentTypeJSON is the default content type.
const ContentTypeJSON = "application/json"

// NewEvent makes the event of a payload: a new id, the encoded body, nothing that a database assigns. It returns a
// *FieldError for a meta that can't be published.
func NewEvent(p Payload) (Event, error) {
	meta := p.EventMeta()
	id, err := uuid.NewV7()
	if err != nil {
		return Event{}, fmt.Errorf("draw event id: %w", err)
	}
	e := Event{
		ID: id, Topic: meta.Topic, Type: meta.Type, Subject: meta.Subject, ContentType: ContentTypeJSON,
		DataSchema: meta.DataSchema, Extensions: meta.Extensions, Headers: meta.Headers,
	}
	if raw, ok := p.(Event); ok {
		e.Body = raw.Body
		if raw.ContentType != "" {
			e.ContentType = raw.ContentType
		}
	} else if e.Body, err = json.Marshal(p); err != nil {
		return Event{}, &FieldError{Field: "body", Reason: "can't be encoded as JSON", Err: err}
	}
	return e, e.Validate()
}

// Decode reads the body of e, which is JSON by its content type, into a T. What can't be read matches ErrUndecodable: also
// a message that EventOf could not read, an event without data, and null for a T that is never nil, as both would look like a T whose fields are all zero.
func Decode[T any](e Event) (T, error) {
	var v T
	undecodable := func(err error) error {
		return printable.Error(fmt.Errorf("%w: %s as %T: %w", ErrUndecodable, e.Type, v, err), printable.Reason)
	}
	if e.Undecoded() {
		return v, undecodable(errors.New("the message could not be read"))
	}
	if json, utf8 := isJSON(cmp.Or(e.ContentType, ContentTypeJSON)); !json || !utf8 {
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
