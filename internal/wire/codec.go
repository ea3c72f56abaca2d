package wire

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Property names on the wire. A CloudEvents attribute has the prefix CE_, as in CloudEvents' RocketMQ binding, which has
// one name of its own: CE_contenttype for datacontenttype. sequence and partitionkey are CloudEvents' documented
// extensions. What begins with rf_ is rocketflow's.
const (
	prefixAttribute = "CE_"
	prefixOwn       = "rf_"

	propID           = prefixAttribute + attrID
	propType         = prefixAttribute + attrType
	propSource       = prefixAttribute + attrSource
	propSubject      = prefixAttribute + attrSubject
	propTime         = prefixAttribute + attrTime
	propSpecVersion  = prefixAttribute + attrSpecVersion
	propDataSchema   = prefixAttribute + attrDataSchema
	propContentType  = "CE_contenttype"
	propSequence     = prefixAttribute + attrSequence
	propPartitionKey = prefixAttribute + attrPartitionKey

	propPrevious    = "rf_previous"
	propDatabase    = "rf_db"
	propTimeoutKey  = "rf_timeout_key"
	propTimeoutName = "rf_timeout_name"
	propUndecoded   = "rf_undecoded" // never sent: marks what has no other property that shows it
	propData        = "rf_data"      // the body is data, though it looks like the binding's sign that there is none
)

// noData is the body of an event without data: RocketMQ takes no empty one, and this is what CloudEvents' Java SDK sends
// and takes for none.
const noData = "\x00"

// MessageOf returns e as it goes on the wire.
func MessageOf(e rocketflow.Event) broker.Message {
	p := make(map[string]string, 12+len(e.Headers)+len(e.Extensions))
	maps.Copy(p, e.Headers)
	for name, value := range e.Extensions {
		p[prefixAttribute+name] = value
	}
	p[propID] = cmp.Or(e.OriginalID, e.ID.String())
	p[propType] = e.Type
	p[propSource] = e.Source
	p[propSpecVersion] = specVersion
	p[propContentType] = e.ContentType
	if e.DataSchema != "" {
		p[propDataSchema] = e.DataSchema
	}
	if !e.Time.IsZero() {
		p[propTime] = e.Time.UTC().Format(time.RFC3339Nano)
	}
	if e.Database != "" {
		p[propDatabase] = e.Database
	}
	if e.TimeoutName != "" {
		p[propTimeoutKey], p[propTimeoutName] = e.TimeoutKey, e.TimeoutName
	}
	m := broker.Message{ID: messageID(e.ID), Topic: e.Topic, Tag: e.Type, Keys: []string{e.ID.String()}, Properties: p, Body: e.Body}
	switch string(e.Body) {
	case "":
		m.Body = []byte(noData)
	case noData:
		p[propData] = "1"
	}
	if e.Subject != "" {
		p[propSubject] = e.Subject
		if !strings.ContainsAny(e.Subject, " ") {
			m.Keys = append(m.Keys, e.Subject)
		}
	}
	if e.Ordered() {
		p[propSequence] = strconv.FormatInt(e.Sequence, 10)
		p[propPrevious] = strconv.FormatInt(e.Previous, 10)
		p[propPartitionKey] = e.Subject
		m.ShardingKey = e.Subject
	}
	return m
}

// messageID is the broker's unique key for an event: 32 hex digits, as RocketMQ's own.
func messageID(id uuid.UUID) string { return fmt.Sprintf("%X", id[:]) }

// EventOf reads a message: a CloudEvent in binary mode, or in structured mode with the JSON format. A message that is no
// CloudEvent, because some other producer sent it, becomes an event without order: Type is its tag, Subject its sharding
// key or else its first key, Time when it was born, and ID is derived from topic and unique key, so that the same message
// is the same event each time.
//
// An error matches rocketflow.ErrUndecodable and names the property or attribute: an event is read whole or not at all. The event
// that comes with an error is what a dead letter can hold of the message. Its ID is derived from topic and unique key as
// well, or else from where the message is stored: what the message says of its identity can't be relied on, as it may be
// missing, or be another event's. It has no order, Headers are all properties that aren't RocketMQ's, and Body is that of
// the message.
func EventOf(d broker.Delivery) (rocketflow.Event, error) {
	e, err := read(d)
	if err != nil {
		return undecoded(d), fmt.Errorf("%w: %w", rocketflow.ErrUndecodable, err)
	}
	return e, nil
}

func read(d broker.Delivery) (rocketflow.Event, error) {
	attributes, err := binaryAttributes(d.Properties)
	if err != nil {
		return rocketflow.Event{}, err
	}
	if len(attributes) == 0 {
		return foreign(d)
	}
	if isStructured(attributes[attrContentType]) {
		return structured(d, attributes)
	}
	return binary(d, attributes)
}

// binaryAttributes returns the attributes among properties. Names are compared as they are: where one differs from an
// attribute's in its case alone, the sender meant something that we would overlook.
func binaryAttributes(p map[string]string) (map[string]string, error) {
	attributes := make(map[string]string, len(p))
	for name, value := range p {
		if value == "" || len(name) <= len(prefixAttribute) {
			continue // brokers and clients drop empty ones
		}
		if like := strings.ToLower(name[:len(prefixAttribute)]); like != "ce_" && like != "ce-" {
			continue
		}
		attribute := name[len(prefixAttribute):]
		switch attribute {
		case "contenttype", "contentType", attrContentType: // the binding has the first two, CloudEvents the last
			attribute = attrContentType
		}
		if !strings.HasPrefix(name, prefixAttribute) || attribute != strings.ToLower(attribute) {
			if lower := strings.ToLower(attribute); contextAttributes[lower] {
				return nil, &attributeError{name, value, "the name of this attribute is " + prefixAttribute + lower}
			}
		}
		if !strings.HasPrefix(name, prefixAttribute) {
			continue
		}
		if other, twice := attributes[attribute]; twice && other != value {
			return nil, &attributeError{name, value, "is there twice, with two values"}
		}
		attributes[attribute] = value
	}
	return attributes, nil
}

func binary(d broker.Delivery, attributes map[string]string) (rocketflow.Event, error) {
	p := d.Properties
	e := rocketflow.Event{
		Topic: d.Topic, Database: p[propDatabase], TimeoutKey: p[propTimeoutKey], TimeoutName: p[propTimeoutName],
		Headers: userHeaders(p), Body: d.Body,
	}
	if string(d.Body) == noData && p[propData] == "" {
		e.Body = nil
	}
	for _, name := range []string{propDatabase, propTimeoutKey, propTimeoutName} {
		if !printable.IsText(p[name]) {
			return e, &attributeError{name, p[name], errText}
		}
	}
	if (e.TimeoutName == "") != (e.TimeoutKey == "") {
		return e, &attributeError{propTimeoutName, e.TimeoutName, "name and key of a timeout come together"}
	}
	// The order is rocketflow's own: a sequence without a link is some other producer's and means nothing to us.
	previous, ordered := p[propPrevious]
	sequence, key := attributes[attrSequence], attributes[attrPartitionKey]
	if ordered {
		delete(attributes, attrSequence)
		delete(attributes, attrPartitionKey)
	}
	err := setAttributes(&e, attributes, d, func(attribute string) string {
		if attribute == attrContentType {
			return propContentType
		}
		return prefixAttribute + attribute
	})
	if err != nil || !ordered {
		return e, err
	}
	var ok bool
	if e.Previous, ok = parseSequence(previous); !ok {
		return e, &attributeError{propPrevious, previous, errSequence}
	}
	if e.Sequence, ok = parseSequence(sequence); !ok || e.Sequence <= e.Previous {
		return e, &attributeError{propSequence, sequence, errSequence}
	}
	switch {
	case e.Subject == "":
		return e, &attributeError{propSubject, "", errMissing}
	case key != "" && key != e.Subject:
		return e, &attributeError{propPartitionKey, key, "is not the subject"}
	}
	return e, nil
}

// foreign reads a message that is no CloudEvent.
func foreign(d broker.Delivery) (rocketflow.Event, error) {
	e := rocketflow.Event{
		ID: messageIdentity(d), Type: d.Tag, Topic: d.Topic, Subject: d.ShardingKey,
		Time: d.Born, ContentType: rocketflow.ContentTypeJSON, Headers: userHeaders(d.Properties), Body: d.Body,
	}
	if e.Subject == "" && len(d.Keys) > 0 {
		e.Subject = d.Keys[0]
	}
	for name, value := range d.Properties {
		if strings.HasPrefix(name, prefixOwn) {
			return e, &attributeError{name, value, "belongs to events of rocketflow, and this is none: " + propSpecVersion + " is missing"}
		}
	}
	switch {
	case !printable.IsText(e.Type):
		return e, &attributeError{"TAGS", e.Type, errText}
	case !printable.IsText(e.Subject):
		return e, &attributeError{"SHARDING_KEY or KEYS", e.Subject, errText}
	}
	return e, nil
}

// undecoded returns what a dead letter can hold of a message that can't be read.
func undecoded(d broker.Delivery) rocketflow.Event {
	p := d.Properties
	e := rocketflow.Event{
		ID: messageIdentity(d), OriginalID: asText(p[propID]), Type: asText(cmp.Or(p[propType], d.Tag)), Source: asText(p[propSource]),
		Topic: d.Topic, Subject: asText(cmp.Or(p[propSubject], d.ShardingKey)), Time: d.Born, Headers: map[string]string{}, Body: d.Body,
	}
	if contentType := p[propContentType]; isMediaType(contentType) {
		e.ContentType = contentType
	}
	for name, value := range p {
		if !broker.Reserved(name) {
			e.Headers[name] = value
		}
	}
	if !Undecoded(e) {
		e.Headers[propUndecoded] = "1"
	}
	return e
}

// Undecoded tells whether e is what EventOf returned with an error, also if it was stored since: its headers are the
// properties of the message, of which those of a CloudEvent are no headers otherwise. It is for people to look at, not for
// handlers: what of it is missing or wrong is not marked.
func Undecoded(e rocketflow.Event) bool {
	for name := range e.Headers {
		if strings.HasPrefix(name, prefixAttribute) || strings.HasPrefix(name, prefixOwn) {
			return true
		}
	}
	return false
}

// identity makes a UUID of a CloudEvents id, which may be any text and is unique per source only. original is that text,
// unless the UUID says the same. Only the canonical form of a UUID is one: two texts are two ids.
func identity(source, text string) (id uuid.UUID, original string) {
	if id, err := uuid.Parse(text); err == nil && id != uuid.Nil && id.String() == text {
		return id, ""
	}
	return derivedID(source, text), text
}

// messageIdentity is the id of a message that has none as an event, the same each time it comes.
func messageIdentity(d broker.Delivery) uuid.UUID {
	if d.ID == "" {
		return derivedID(d.Topic, fmt.Sprintf("%s/%d/%d", d.Broker, d.Queue, d.Offset))
	}
	return derivedID(d.Topic, d.ID)
}

// derivedID is a UUID of version 8 (RFC 9562): a digest of what identifies a foreign message.
func derivedID(space, name string) uuid.UUID {
	sum := sha256.Sum256([]byte(space + "\x00" + name))
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// userHeaders returns the properties that are neither attributes nor rocketflow's nor RocketMQ's.
func userHeaders(p map[string]string) map[string]string {
	var h map[string]string
	for name, value := range p {
		if strings.HasPrefix(name, prefixAttribute) || strings.HasPrefix(name, prefixOwn) || broker.Reserved(name) {
			continue
		}
		if h == nil {
			h = map[string]string{}
		}
		h[name] = value
	}
	return h
}
