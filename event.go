package rocketflow

import (
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

// Limits of what can be published. A RocketMQ broker stores properties in 32,767 bytes, its own included, and topics
// in 127.
const (
	MaxTopic   = 127
	MaxType    = 255
	MaxSubject = 255
	MaxSource  = 255
	MaxHeaders = 16 << 10 // names and values of headers and extensions, and the schema, together

	// MaxSequence is the highest sequence that an event can have: the last microsecond of the year 9999.
	MaxSequence = 253402300799999999
)
