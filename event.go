package rocketflow

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
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
}

// Event is one event as it was recorded and as handlers see it; on the wire it is a CloudEvent (binary mode).
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
	return Meta{Topic: e.Topic, Type: e.Type, Subject: e.Subject, Headers: e.Headers}
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
	e := Event{ID: id, Topic: meta.Topic, Type: meta.Type, Subject: meta.Subject, Headers: meta.Headers, ContentType: ContentTypeJSON}
	if raw, ok := p.(Event); ok {
		e.Body = raw.Body
		if raw.ContentType != "" {
			e.ContentType = raw.ContentType
		}
	} else if e.Body, err = json.Marshal(p); err != nil {
		return Event{}, &FieldError{Field: "body", Reason: "can't be encoded as JSON", Err: err}
	}
	if err := e.Validate(); err != nil {
		return e, err
	}
	if len(e.Body) == 0 {
		return e, &FieldError{Field: "body", Reason: "missing: RocketMQ takes no empty message"}
	}
	return e, nil
}

// Decode reads the body of e into a T. What can't be read matches ErrUndecodable.
func Decode[T any](e Event) (T, error) {
	var v T
	if e.ContentType != "" && e.ContentType != ContentTypeJSON {
		return v, fmt.Errorf("%w: content type %q, want %q", ErrUndecodable, e.ContentType, ContentTypeJSON)
	}
	if err := json.Unmarshal(e.Body, &v); err != nil {
		return v, fmt.Errorf("%w: %s as %T: %w", ErrUndecodable, e.Type, v, err)
	}
	return v, nil
}
