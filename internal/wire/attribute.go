package wire

import (
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Names of CloudEvents attributes.
const (
	attrID           = "id"
	attrType         = "type"
	attrSource       = "source"
	attrSubject      = "subject"
	attrTime         = "time"
	attrSpecVersion  = "specversion"
	attrContentType  = "datacontenttype"
	attrDataSchema   = "dataschema"
	attrSequence     = "sequence"
	attrPartitionKey = "partitionkey"

	specVersion = "1.0"
)

// contextAttributes are the names that an extension can't have: the attributes of CloudEvents itself, the members of the
// JSON format, and the name of datacontenttype in the RocketMQ binding.
var contextAttributes = map[string]bool{
	attrID: true, attrType: true, attrSource: true, attrSubject: true, attrTime: true, attrSpecVersion: true,
	attrContentType: true, attrDataSchema: true, "data": true, "data_base64": true, "contenttype": true,
}

// attributeError names the property that makes a message unreadable. Its text shows the value shortened and escaped.
type attributeError struct{ name, value, reason string }

func (e *attributeError) Error() string {
	return fmt.Sprintf("property %s=%s: %s", printable.Line(e.name, 64), printable.Quote(e.value, 64), e.reason)
}

const (
	errMissing  = "missing"
	errSequence = "not a sequence number greater than its predecessor's, nor later than the year 9999"
	errText     = "not text without control characters"
)

// setAttributes sets the fields of e that are CloudEvents attributes. property returns the name that an attribute has in the
// message, for errors.
func setAttributes(e *rocketflow.Event, attributes map[string]string, d broker.Delivery, property func(attribute string) string) error {
	bad := func(attribute, reason string) error {
		return &attributeError{property(attribute), attributes[attribute], reason}
	}
	switch v := attributes[attrSpecVersion]; {
	case v == "":
		return bad(attrSpecVersion, errMissing)
	case v != specVersion:
		return bad(attrSpecVersion, "want CloudEvents "+specVersion+", whose attributes have other names or meanings")
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if !printable.IsText(attributes[name]) {
			return bad(name, errText)
		}
	}
	for _, name := range [...]string{attrID, attrSource, attrType} {
		if attributes[name] == "" {
			return bad(name, errMissing)
		}
	}
	e.Type, e.Source, e.Subject = attributes[attrType], attributes[attrSource], attributes[attrSubject]
	e.ID, e.OriginalID = identity(e.Source, attributes[attrID])
	e.DataSchema = attributes[attrDataSchema]
	e.Time = timeOf(d)
	if v := attributes[attrTime]; v != "" {
		var ok bool
		if e.Time, ok = parseTime(v); !ok {
			return bad(attrTime, "not an instant of RFC 3339, with its zone, in the years 1 to 9999")
		}
	}
	e.ContentType = rocketflow.ContentTypeJSON
	if v := attributes[attrContentType]; v != "" {
		if e.ContentType = v; !isMediaType(v) {
			return bad(attrContentType, "not a media type")
		}
	}
	for name, value := range attributes {
		if contextAttributes[name] {
			if name == "data" || name == "data_base64" {
				return bad(name, "not the name of an attribute")
			}
			continue
		}
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[name] = value
	}
	return nil
}

// parseSequence accepts the canonical decimal form only, so that a sequence that was read is written unchanged.
func parseSequence(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= rocketflow.MaxSequence && strconv.FormatInt(n, 10) == s
}

// parseTime parses a timestamp of RFC 3339, which allows leap seconds and lower-case letters. A leap second becomes the
// second after it, as in Postgres.
func parseTime(s string) (time.Time, bool) {
	s = strings.ToUpper(s)
	var leap time.Duration
	if len(s) > len("2006-01-02T15:04:05") && s[16:19] == ":60" {
		s, leap = s[:16]+":59"+s[19:], time.Second
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || strings.Contains(s, ",") || len(s) < len("2006-01-02T15:04:05Z") || s[13] != ':' {
		return time.Time{}, false // what time.Parse takes beside the RFC
	}
	t = t.Add(leap).UTC()
	return t, clock.IsInstant(t)
}

// timeOf returns when a message was sent: as its sender says, or else as its broker, or zero if neither names an instant.
func timeOf(d broker.Delivery) time.Time {
	for _, t := range [...]time.Time{d.Born, d.Stored} {
		if clock.IsInstant(t) && !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// isURIReference reports whether s is a URI reference by RFC 3986. url.Parse alone accepts more than that.
func isURIReference(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~:/?@!$&'()*+,;=", c) >= 0:
		case c == '#' && strings.IndexByte(s, '#') == i:
		case (c == '[' || c == ']') && strings.Count(s, string(c)) == 1 && strings.IndexByte(u.Host, c) >= 0: // an IPv6 address
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// isURI reports whether s is a URI reference with a scheme.
func isURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && isURIReference(s)
}

// isMediaType reports whether s is a media type with type and subtype.
func isMediaType(s string) bool {
	t, _, err := mime.ParseMediaType(s)
	return err == nil && strings.Contains(t, "/")
}

// isExtension reports whether CloudEvents allows the name for an extension.
func isExtension(name string) bool {
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') {
			return false
		}
	}
	return name != "" && !contextAttributes[name]
}

// isName reports whether s consists of letters, digits, _ - and the characters of also.
func isName(s, also string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || strings.ContainsRune(also, r)) {
			return false
		}
	}
	return true
}

// asText replaces what is no printable UTF-8 text in s.
func asText(s string) string {
	return strings.Map(func(r rune) rune {
		if printable.IsText(string(r)) {
			return r
		}
		return utf8.RuneError
	}, s)
}
