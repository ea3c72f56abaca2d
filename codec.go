package rocketflow

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// Property names on the wire. Those of CloudEvents are as in its RocketMQ binding; sequence and partitionkey are its
// documented extensions.
const (
	propID           = "CE_id"
	propType         = "CE_type"
	propSource       = "CE_source"
	propSubject      = "CE_subject"
	propTime         = "CE_time"
	propSpecVersion  = "CE_specversion"
	propContentType  = "CE_contenttype"
	propSequence     = "CE_sequence"
	propPartitionKey = "CE_partitionkey"
	propPrevious     = "rf_previous"
	propDatabase     = "rf_db"
	propTimeoutKey   = "rf_timeout_key"
	propTimeoutName  = "rf_timeout_name"

	specVersion = "1.0"
)

// Limits of what can be published. A RocketMQ broker stores properties in 32,767 bytes, its own included, and topics
// in 127.
const (
	MaxTopic   = 127
	MaxType    = 255
	MaxSubject = 255
	MaxHeaders = 16 << 10 // names and values together
)

// Message returns e as it goes on the wire.
func (e Event) Message() broker.Message {
	p := make(map[string]string, 12+len(e.Headers))
	maps.Copy(p, e.Headers)
	p[propID] = cmp.Or(e.OriginalID, e.ID.String())
	p[propType] = e.Type
	p[propSource] = e.Source
	p[propSpecVersion] = specVersion
	p[propContentType] = e.ContentType
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

// EventOf reads a message. One that is no CloudEvent, because some other producer sent it, becomes an event without
// order: Type is its tag, Subject its sharding key or else its first key, Time when it was born, and ID is derived
// from topic and unique key, so that the same message is the same event each time.
//
// An error matches ErrUndecodable and names the property. The event that comes with it is what a dead letter can hold: it
// has no order, and its ID is derived from topic and unique key as well, or else from where the message is stored. What
// the message says of its identity can't be relied on: it may be missing, or be another event's.
func EventOf(d broker.Delivery) (Event, error) {
	p := d.Properties
	if p[propSpecVersion] == "" && p[propID] == "" {
		return foreignEvent(d), nil
	}
	e := Event{
		Type: p[propType], Source: p[propSource], Topic: d.Topic, Subject: p[propSubject],
		Database: p[propDatabase], ContentType: p[propContentType], Headers: userHeaders(p), Body: d.Body,
		TimeoutKey: p[propTimeoutKey], TimeoutName: p[propTimeoutName],
	}
	bad := func(name string, err error) (Event, error) {
		e.ID, e.OriginalID, e.Sequence, e.Previous = messageIdentity(d), p[propID], 0, 0
		return e, fmt.Errorf("%w: property %s=%.64q: %w", ErrUndecodable, name, p[name], err)
	}
	var err error
	if p[propID] == "" {
		return bad(propID, errMissing)
	}
	e.ID, e.OriginalID = identity(e.Source, p[propID])
	if v := p[propSpecVersion]; v != specVersion {
		return bad(propSpecVersion, fmt.Errorf("want %s", specVersion))
	}
	if e.Type == "" {
		return bad(propType, errMissing)
	}
	if v := p[propTime]; v == "" {
		e.Time = d.Born
	} else if e.Time, err = time.Parse(time.RFC3339Nano, v); err != nil {
		return bad(propTime, err)
	}
	// The order is rocketflow's own: a sequence without a link is some other producer's and means nothing to us.
	if v, ok := p[propPrevious]; ok {
		if e.Previous, err = strconv.ParseInt(v, 10, 64); err != nil || e.Previous < 0 {
			return bad(propPrevious, errNotSequence)
		}
		if e.Sequence, err = strconv.ParseInt(p[propSequence], 10, 64); err != nil || e.Sequence <= e.Previous {
			return bad(propSequence, errNotSequence)
		}
		if e.Subject == "" {
			return bad(propSubject, errMissing)
		}
	}
	if e.ContentType == "" {
		e.ContentType = ContentTypeJSON
	}
	return e, nil
}

var (
	errMissing     = &FieldError{Field: "property", Reason: "missing"}
	errNotSequence = &FieldError{Field: "property", Reason: "not a sequence number greater than its predecessor's"}
)

func foreignEvent(d broker.Delivery) Event {
	e := Event{
		ID: messageIdentity(d), Type: d.Tag, Topic: d.Topic, Subject: d.ShardingKey,
		Time: d.Born, ContentType: ContentTypeJSON, Headers: userHeaders(d.Properties), Body: d.Body,
	}
	if e.Subject == "" && len(d.Keys) > 0 {
		e.Subject = d.Keys[0]
	}
	return e
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

func reserved(name string) bool {
	return strings.HasPrefix(name, "CE_") || strings.HasPrefix(name, "rf_") || broker.Reserved(name)
}

func userHeaders(p map[string]string) map[string]string {
	var h map[string]string
	for k, v := range p {
		if reserved(k) {
			continue
		}
		if h == nil {
			h = map[string]string{}
		}
		h[k] = v
	}
	return h
}

// Validate returns a *FieldError, or a *broker.ReservedPropertyError, for what could never be sent or read back.
func (e Event) Validate() error {
	switch {
	case e.Topic == "":
		return &FieldError{Field: "topic", Reason: "missing"}
	case len(e.Topic) > MaxTopic || !isName(e.Topic, "%|"):
		return &FieldError{Field: "topic", Reason: fmt.Sprintf("%.140q: want at most %d letters, digits, _ - %% |", e.Topic, MaxTopic)}
	case e.Type == "":
		return &FieldError{Field: "type", Reason: "missing"}
	case len(e.Type) > MaxType || !isName(e.Type, "./:"):
		return &FieldError{Field: "type", Reason: fmt.Sprintf("%.260q: want at most %d letters, digits, _ - . / :", e.Type, MaxType)}
	case len(e.Subject) > MaxSubject || !isText(e.Subject):
		return &FieldError{Field: "subject", Reason: fmt.Sprintf("%.260q: want at most %d bytes without control characters", e.Subject, MaxSubject)}
	case len(e.ContentType) > MaxType || !isText(e.ContentType):
		return &FieldError{Field: "content type", Reason: fmt.Sprintf("%.260q: want at most %d bytes without control characters", e.ContentType, MaxType)}
	}
	size := 0
	for _, k := range slices.Sorted(maps.Keys(e.Headers)) {
		v := e.Headers[k]
		size += len(k) + len(v) + 2
		switch {
		case reserved(k):
			return &broker.ReservedPropertyError{Property: k}
		case k == "" || !isName(k, "."):
			return &FieldError{Field: "headers", Reason: fmt.Sprintf("name %.64q: want letters, digits, _ - .", k)}
		case v == "" || !isText(v):
			return &FieldError{Field: "headers", Reason: fmt.Sprintf("value of %q: want text without control characters", k)}
		}
	}
	if size > MaxHeaders {
		return &FieldError{Field: "headers", Reason: fmt.Sprintf("%d bytes, at most %d are allowed", size, MaxHeaders)}
	}
	return nil
}

func isName(s, also string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || strings.ContainsRune(also, r)) {
			return false
		}
	}
	return true
}

func isText(s string) bool {
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == '\uFFFD' {
			return false
		}
	}
	return true
}
