// Package wire converts events to messages and back. A message is a CloudEvent in binary mode; the structured mode with the
// JSON format is read as well. The package also validates what can be published, and encodes and decodes payloads.
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

// Names of message properties. The property of a CloudEvents attribute has the prefix CE_, as in CloudEvents' RocketMQ
// binding; that of datacontenttype is CE_contenttype. sequence and partitionkey are documented extensions of CloudEvents.
// Properties with the prefix rf_ are rocketflow's own.
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

// noData is the body of a message whose event has no data. RocketMQ refuses an empty body, and CloudEvents' Java SDK sends
// and reads this one.
const noData = "\x00"

// MessageOf returns the message that carries e.
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

// messageID returns the unique key of the message: 32 hexadecimal digits, as in RocketMQ's own keys.
func messageID(id uuid.UUID) string { return fmt.Sprintf("%X", id[:]) }

// EventOf returns the event that a message carries. A message of another producer that is no CloudEvent becomes an event
// without order: Type is its tag, Subject its sharding key or else its first key, Time its creation time or else when it was stored, and ID
// is derived from topic and unique key, so that each delivery of the message yields the same event.
//
// An error matches rocketflow.ErrUndecodable and names the property or attribute: an event is read completely or not at
// all. With an error, EventOf returns what a dead letter can store of the message: an event without order, whose Headers are
// all properties that aren't RocketMQ's and whose Body is that of the message. Its ID is derived from topic and unique key,
// or else from the place where the message is stored, because the id in the message may be missing or another event's.
func EventOf(d broker.Delivery) (rocketflow.Event, error) {
	if d.Unreadable != nil {
		return undecoded(d), fmt.Errorf("%w: %w", rocketflow.ErrUndecodable, d.Unreadable)
	}
	e, err := read(d)
	if err != nil {
		return undecoded(d), fmt.Errorf("%w: %w", rocketflow.ErrUndecodable, err)
	}
	return e, nil
}

// read returns the event of a message in any of the modes.
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

// binaryAttributes returns the CloudEvents attributes among the properties p. A name that differs from an attribute's only in
// case is an error: ignoring it would lose what the sender meant.
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

// binary returns the event of a CloudEvent in binary mode.
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

// foreign returns the event of a message that is no CloudEvent.
func foreign(d broker.Delivery) (rocketflow.Event, error) {
	e := rocketflow.Event{
		ID: messageIdentity(d), Type: d.Tag, Topic: d.Topic, Subject: d.ShardingKey,
		Time: timeOf(d), ContentType: rocketflow.ContentTypeJSON, Headers: userHeaders(d.Properties), Body: d.Body,
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

// undecoded returns the event that a dead letter stores of a message that can't be read.
func undecoded(d broker.Delivery) rocketflow.Event {
	p := d.Properties
	e := rocketflow.Event{
		ID: messageIdentity(d), OriginalID: asText(p[propID]), Type: asText(cmp.Or(p[propType], d.Tag)), Source: asText(p[propSource]),
		Topic: d.Topic, Subject: asText(cmp.Or(p[propSubject], d.ShardingKey)), Time: timeOf(d), Headers: map[string]string{}, Body: d.Body,
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

// CutDown returns what a dead letter can store of an event that a database refuses: its id and body as they are, the beginning of its names
// in ASCII, which every encoding has, and all its parts in one header, for operators. Undecoded is true for it.
func CutDown(e rocketflow.Event) rocketflow.Event {
	const most = 100 // bytes of a name, fewer than any index allows
	name := func(s string) string {
		s = printable.ASCII(s)
		return s[:min(len(s), most)]
	}
	parts := fmt.Sprintf("source=%+q id=%+q type=%+q topic=%+q subject=%+q sequence=%d previous=%d time=%v database=%+q "+
		"timeout=%+q/%+q contenttype=%+q schema=%+q extensions=%+q headers=%+q",
		e.Source, e.OriginalID, e.Type, e.Topic, e.Subject, e.Sequence, e.Previous, e.Time.UTC(), e.Database, e.TimeoutKey, e.TimeoutName, e.ContentType,
		e.DataSchema, e.Extensions, e.Headers)
	return rocketflow.Event{
		ID: e.ID, Source: name(e.Source), Topic: name(e.Topic), Type: name(e.Type), Subject: name(e.Subject), Body: e.Body,
		Headers: map[string]string{propUndecoded: parts},
	}
}

// Undecoded reports whether e is an event that EventOf returned with an error, also after it was stored: its headers include
// properties of CloudEvents or rocketflow, which are no headers otherwise. Such an event is for operators, not for handlers.
func Undecoded(e rocketflow.Event) bool {
	for name := range e.Headers {
		if strings.HasPrefix(name, prefixAttribute) || strings.HasPrefix(name, prefixOwn) {
			return true
		}
	}
	return false
}

// identity returns the UUID of a CloudEvents id, which may be any text and is unique per source only. original is the text,
// unless it is a UUID in canonical form; other forms of the same UUID are other ids.
func identity(source, text string) (id uuid.UUID, original string) {
	if id, err := uuid.Parse(text); err == nil && id != uuid.Nil && id.String() == text {
		return id, ""
	}
	return derivedID(source, text), text
}

// messageIdentity derives the id of a message that carries no id of an event. It is the same for each delivery.
func messageIdentity(d broker.Delivery) uuid.UUID {
	if d.ID == "" {
		return derivedID(d.Topic, fmt.Sprintf("%s/%d/%d", d.Broker, d.Queue, d.Offset))
	}
	return derivedID(d.Topic, d.ID)
}

// derivedID returns a UUID of version 8 (RFC 9562): a digest of name, which is unique within space.
func derivedID(space, name string) uuid.UUID {
	sum := sha256.Sum256([]byte(space + "\x00" + name))
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// userHeaders returns the properties that are neither attributes nor reserved by rocketflow or RocketMQ.
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
