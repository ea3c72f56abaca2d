package wire

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/valid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Validate returns a *rocketflow.FieldError or a *broker.ReservedPropertyError for an event that can't be sent and read back
// unchanged, or that is no valid CloudEvent. Source may be empty: the outbox sets it.
func Validate(e rocketflow.Event) error {
	if e.Source != "" {
		if err := ValidateSource("source", e.Source); err != nil {
			return err
		}
	}
	bad := func(field, value, want string) error {
		return valid.Field(field, printable.Quote(value, printable.Name)+": want "+want)
	}
	switch {
	case e.Topic == "":
		return valid.Field("topic", "missing")
	case len(e.Topic) > rocketflow.MaxTopic || !isName(e.Topic, "%|"):
		return bad("topic", e.Topic, fmt.Sprintf("at most %d letters, digits, _ - %% |", rocketflow.MaxTopic))
	case e.Type == "":
		return valid.Field("type", "missing")
	case len(e.Type) > rocketflow.MaxType || !isName(e.Type, "./:"):
		return bad("type", e.Type, fmt.Sprintf("at most %d letters, digits, _ - . / :", rocketflow.MaxType))
	case len(e.Subject) > rocketflow.MaxSubject || !printable.IsText(e.Subject):
		return bad("subject", e.Subject, fmt.Sprintf("at most %d bytes of text without control characters", rocketflow.MaxSubject))
	case e.ContentType != "" && (len(e.ContentType) > rocketflow.MaxType || !isMediaType(e.ContentType) || !printable.IsText(e.ContentType)):
		return bad("content type", e.ContentType, fmt.Sprintf("a media type of at most %d bytes, such as text/plain; charset=utf-8", rocketflow.MaxType))
	case isStructured(e.ContentType):
		return bad("content type", e.ContentType, "that of the data alone: publish the attributes as fields of rocketflow.Event")
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
			return valid.Fieldf("extensions", "value of %s: want text without control characters", printable.Quote(name, printable.Name))
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
			return valid.Fieldf("headers", "value of %s: want text without control characters", printable.Quote(name, printable.Name))
		}
	}
	if size > rocketflow.MaxHeaders {
		return valid.Fieldf("headers", "%d bytes with extensions and schema, at most %d are allowed", size, rocketflow.MaxHeaders)
	}
	return nil
}

// ValidateSource returns a *rocketflow.FieldError that names field if source can't be the source of events: a URI reference
// (RFC 3986) such as "order" or "https://example.com/order".
func ValidateSource(field, source string) error {
	if source == "" {
		return valid.Field(field, "missing: name the service")
	}
	if len(source) > rocketflow.MaxSource || !isURIReference(source) {
		return valid.Fieldf(field, "%s: want a URI reference of at most %d bytes, such as order or https://example.com/order",
			printable.Quote(source, printable.Name), rocketflow.MaxSource)
	}
	return nil
}

// isReserved reports whether a header can't have this name. Names that resemble an attribute's are reserved, too, because a
// reader would reject them as misspelled.
func isReserved(name string) bool {
	if broker.Reserved(name) || strings.HasPrefix(name, prefixOwn) || len(name) >= len(prefixAttribute) && strings.EqualFold(name[:len(prefixAttribute)], prefixAttribute) {
		return true
	}
	return len(name) > 3 && strings.EqualFold(name[:3], "ce-") && contextAttributes[strings.ToLower(name[3:])]
}
