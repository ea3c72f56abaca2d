package rocketflow

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Limits of what can be published. A RocketMQ broker stores properties in 32,767 bytes, its own included, and topics
// in 127.
const (
	MaxTopic   = 127
	MaxType    = 255
	MaxSubject = 255
	MaxSource  = 255
	MaxHeaders = 16 << 10 // names and values of headers and extensions, and the schema, together
)

// Validate returns a *FieldError, or a *broker.ReservedPropertyError, for what could never be sent or read back, or would
// be no valid CloudEvent. An empty Source is left to whoever sets it.
func (e Event) Validate() error {
	if e.Source != "" {
		if err := ValidateSource("source", e.Source); err != nil {
			return err
		}
	}
	bad := func(field, value, want string) error {
		return &FieldError{Field: field, Reason: printable.Quote(value, printable.Name) + ": want " + want}
	}
	switch {
	case e.Topic == "":
		return &FieldError{Field: "topic", Reason: "missing"}
	case len(e.Topic) > MaxTopic || !isName(e.Topic, "%|"):
		return bad("topic", e.Topic, fmt.Sprintf("at most %d letters, digits, _ - %% |", MaxTopic))
	case e.Type == "":
		return &FieldError{Field: "type", Reason: "missing"}
	case len(e.Type) > MaxType || !isName(e.Type, "./:"):
		return bad("type", e.Type, fmt.Sprintf("at most %d letters, digits, _ - . / :", MaxType))
	case len(e.Subject) > MaxSubject || !printable.IsText(e.Subject):
		return bad("subject", e.Subject, fmt.Sprintf("at most %d bytes of text without control characters", MaxSubject))
	case e.ContentType != "" && (len(e.ContentType) > MaxType || !isMediaType(e.ContentType) || !printable.IsText(e.ContentType)):
		return bad("content type", e.ContentType, fmt.Sprintf("a media type of at most %d bytes, such as text/plain; charset=utf-8", MaxType))
	case isStructured(e.ContentType):
		return bad("content type", e.ContentType, "that of the data alone: publish the attributes as fields of Event")
	case e.DataSchema != "" && !isURI(e.DataSchema):
		return bad("data schema", e.DataSchema, "a URI with its scheme")
	}
	size := len(e.DataSchema)
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		value := e.Extensions[name]
		size += len(prefixAttribute) + len(name) + len(value) + 2
		switch {
		case !isExtension(name):
			return bad("extensions", name, "a name of small letters and digits that is no attribute of CloudEvents itself")
		case e.Subject != "" && (name == attrSequence || name == attrPartitionKey):
			return bad("extensions", name, "another name: rocketflow sets this one for events with a subject")
		case value == "" || !printable.IsText(value):
			return &FieldError{Field: "extensions", Reason: fmt.Sprintf("value of %s: want text without control characters", printable.Quote(name, printable.Name))}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		value := e.Headers[name]
		size += len(name) + len(value) + 2
		switch {
		case isReserved(name):
			return &broker.ReservedPropertyError{Property: name}
		case name == "" || !isName(name, "."):
			return bad("headers", name, "a name of letters, digits, _ - .")
		case value == "" || !printable.IsText(value):
			return &FieldError{Field: "headers", Reason: fmt.Sprintf("value of %s: want text without control characters", printable.Quote(name, printable.Name))}
		}
	}
	if size > MaxHeaders {
		return &FieldError{Field: "headers", Reason: fmt.Sprintf("%d bytes with extensions and schema, at most %d are allowed", size, MaxHeaders)}
	}
	return nil
}

// ValidateSource returns a *FieldError that names field unless source can be the Source of events: a URI reference (RFC
// 3986), such as "order" or "https://example.com/order". The parts call it for their Config.
func ValidateSource(field, source string) error {
	if source == "" {
		return &FieldError{Field: field, Reason: "missing: name the service"}
	}
	if len(source) > MaxSource || !isURIReference(source) {
		return &FieldError{Field: field, Reason: fmt.Sprintf("%s: want a URI reference of at most %d bytes, such as order or https://example.com/order",
			printable.Quote(source, printable.Name), MaxSource)}
	}
	return nil
}

// isReserved tells whether a header can't have this name. What looks like an attribute's is reserved as well: readers would
// take it for one that is misspelled.
func isReserved(name string) bool {
	if broker.Reserved(name) || strings.HasPrefix(name, prefixOwn) || len(name) >= len(prefixAttribute) && strings.EqualFold(name[:len(prefixAttribute)], prefixAttribute) {
		return true
	}
	return len(name) > 3 && strings.EqualFold(name[:3], "ce-") && contextAttributes[strings.ToLower(name[3:])]
}
