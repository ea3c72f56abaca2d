package rocketflow

import (
	"time"

	"github.com/google/uuid"
)

// Payload is the content of an event: a type whose values say where they belong. EventMeta must be a method of the value,
// not of the pointer, because handlers are registered by the topic and type that the zero value returns.
//
// A payload is encoded as JSON. To choose another encoding, publish an [Event], which carries its encoded Body.
type Payload interface {
	EventMeta() Meta
}

// Meta says where an event belongs.
type Meta struct {
	Topic string // the topic of the broker; required; at most MaxTopic letters, digits, _ - % |
	Type  string // the type of the event, such as order.placed; required; at most MaxType letters, digits, _ - . / :

	// Subject is the id of the aggregate that the event is about, at most MaxSubject bytes of text. Events with a subject are
	// delivered in order; an event without a subject has none.
	Subject string

	// Unordered excludes an event with a subject from the order of its aggregate: it is handled as soon as it arrives.
	// Defaults to false.
	Unordered bool

	// Headers travel with the event as properties of the message. Names consist of letters, digits, _ - and dots; names that
	// begin with CE_ or rf_, and those that RocketMQ reserves, are refused. MaxHeaders limits their size.
	Headers map[string]string

	DataSchema string            // see Event
	Extensions map[string]string // see Event; names consist of lower-case letters and digits
}

// Event is an event as it was published and as handlers receive it. In a message it is a CloudEvent 1.0 in binary mode;
// the structured mode of other producers is read, too.
type Event struct {
	// ID and Source together identify an event. ID is a UUIDv7 if rocketflow published the event. If another producer sent it
	// with an id that is no UUID in canonical form, ID is derived from source and id, and OriginalID is that id. If the message
	// is no CloudEvent, ID is derived from the unique key of the message.
	ID         uuid.UUID
	OriginalID string

	Type    string // such as order.placed
	Source  string // the service that published it: a URI reference of at most MaxSource bytes
	Topic   string // the topic of the broker
	Subject string // the id of its aggregate, or empty

	// Sequence increases strictly along the event's stream, and Previous is the sequence of the event before it, 0 for the
	// first one. A sequence is the time of the publication in microseconds since 1970 by the clock of the publisher's
	// database, or slightly more. Both are 0 for an event without order.
	Sequence int64
	Previous int64

	Time        time.Time // of the publication, by the clock of the publisher's database
	Database    string    // the id of the publisher's database
	ContentType string    // the media type of Body. Defaults to ContentTypeJSON.
	DataSchema  string    // CloudEvents' dataschema: the URI of the schema of Body, or empty

	// Extensions are the extension attributes of the CloudEvent that have no field here, in the text form of their type.
	Extensions map[string]string
	Headers    map[string]string // the properties of the message that are neither attributes nor reserved by RocketMQ
	Body       []byte            // the encoded payload; empty if the event has no data

	// TimeoutKey and TimeoutName name the timeout that fired with this event, whose ID is then the timeout's epoch. Both are
	// empty for other events.
	TimeoutKey, TimeoutName string
}

// Stream identifies a sequence of events that are delivered in order: those that a service published on a topic about an
// aggregate.
type Stream struct {
	Source, Topic, Subject string // as in Event
}

// Stream returns the stream of e, or the zero value if e has no order.
func (e Event) Stream() Stream {
	if !e.Ordered() {
		return Stream{}
	}
	return Stream{e.Source, e.Topic, e.Subject}
}

// Ordered reports whether e belongs to a stream.
func (e Event) Ordered() bool { return e.Sequence > 0 }

// EventMeta makes Event a Payload whose Body is sent as it is.
func (e Event) EventMeta() Meta {
	return Meta{Topic: e.Topic, Type: e.Type, Subject: e.Subject, Headers: e.Headers, DataSchema: e.DataSchema, Extensions: e.Extensions}
}

// ContentTypeJSON is the content type of an event that names no other.
const ContentTypeJSON = "application/json"

// Limits of an event that is published, in bytes. A RocketMQ broker stores the properties of a message in at most 32,767
// bytes, its own included, and the name of a topic in 127.
const (
	MaxTopic   = 127
	MaxType    = 255
	MaxSubject = 255
	MaxSource  = 255
	MaxHeaders = 16 << 10 // names and values of headers and extensions, and the data schema, together
)

// MaxSequence is the largest sequence of an event: the last microsecond of the year 9999.
const MaxSequence = 253402300799999999
