package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Content types of CloudEvents' structured and batched modes.
const (
	structuredPrefix = "application/cloudevents"
	structuredJSON   = "application/cloudevents+json"
	batchPrefix      = "application/cloudevents-batch"
)

// isStructured reports whether a body of this content type contains a whole event, in any format.
func isStructured(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), structuredPrefix)
}

// structured returns the event of a CloudEvent in structured mode. properties are the attributes that the message repeats as
// properties; they must agree with those in the body.
func structured(d broker.Delivery, properties map[string]string) (rocketflow.Event, error) {
	contentType := properties[attrContentType]
	bad := func(reason string) error { return &attributeError{propContentType, contentType, reason} }
	format, parameters, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return rocketflow.Event{}, bad("not a media type")
	case strings.HasPrefix(format, batchPrefix):
		return rocketflow.Event{}, bad("a batch of events in one message is not read: send each as a message of its own")
	case format != structuredJSON:
		return rocketflow.Event{}, bad("of the formats of CloudEvents only " + structuredJSON + " is read")
	case !isUTF8(parameters):
		return rocketflow.Event{}, bad("want charset utf-8")
	}
	for name, value := range d.Properties {
		if strings.HasPrefix(name, prefixOwn) {
			return rocketflow.Event{}, &attributeError{name, value, "belongs to events in binary mode"}
		}
	}
	attributes, body, err := readJSONFormat(d.Body)
	if err != nil {
		return rocketflow.Event{}, bad(err.Error())
	}
	for name, value := range properties {
		if name != attrContentType && attributes[name] != value {
			return rocketflow.Event{}, &attributeError{prefixAttribute + name, value, "the body has another value of this attribute"}
		}
	}
	if attributes["contenttype"] != "" { // it has no name of its own among properties
		return rocketflow.Event{}, &attributeError{"contenttype", attributes["contenttype"], "not the name of an attribute"}
	}
	if inner := attributes[attrContentType]; isStructured(inner) { // in binary mode it would be taken for structured mode
		return rocketflow.Event{}, &attributeError{attrContentType, inner, "an event within an event is not read"}
	}
	e := rocketflow.Event{Topic: d.Topic, Headers: userHeaders(d.Properties), Body: body}
	return e, setAttributes(&e, attributes, d, func(attribute string) string { return attribute })
}

// readJSONFormat parses CloudEvents' JSON format. A member that is null counts as absent.
func readJSONFormat(text []byte) (attributes map[string]string, body []byte, err error) {
	text = bytes.TrimPrefix(text, []byte("\xEF\xBB\xBF")) // a byte order mark, which readers of JSON may ignore
	if !utf8.Valid(text) {
		return nil, nil, errors.New("body is no UTF-8")
	}
	members, err := members(text)
	if err != nil {
		return nil, nil, err
	}
	attributes = make(map[string]string, len(members))
	for name, value := range members {
		if lower := strings.ToLower(name); lower != name && contextAttributes[lower] {
			return nil, nil, fmt.Errorf("member %s: the name of this attribute is %s", printable.Quote(name, 64), lower)
		}
		if name == "data" || name == "data_base64" {
			continue
		}
		if attributes[name], err = attributeText(value); err != nil {
			return nil, nil, fmt.Errorf("member %s: %w", printable.Quote(name, 64), err)
		}
	}
	body, err = data(members, attributes[attrContentType])
	return attributes, body, err
}

// members returns the members of a JSON object that aren't null. A name that occurs twice is an error; encoding/json alone
// would use the last value.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("body is no JSON object")
	}
	found := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil || !ok {
			return nil, errors.New("body is no JSON")
		}
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("member %s is there twice", printable.Quote(name, 64))
		}
		found[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("body is no JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("body goes on behind its JSON object")
	}
	for name, value := range found {
		if string(value) == "null" {
			delete(found, name)
		}
	}
	return found, nil
}

// attributeText returns the text form of an attribute, whose JSON value can be a string, a boolean or an integer.
func attributeText(value json.RawMessage) (string, error) {
	switch c := value[0]; {
	case c == '"':
		text, err := stringOf(value)
		if err == nil && text == "" {
			err = errors.New("is empty")
		}
		return text, err
	case c == 't' || c == 'f', (c == '-' || c >= '0' && c <= '9') && !bytes.ContainsAny(value, ".eE"):
		return string(value), nil
	}
	return "", errors.New("want a string, a boolean or an integer")
}

// stringOf decodes a JSON string. A lone surrogate is an error, because UTF-8 can't represent it.
func stringOf(value json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return "", errors.New("want a string")
	}
	if strings.ContainsRune(text, utf8.RuneError) && !bytes.ContainsRune(value, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(value), []byte(`\ufffd`)) {
		return "", errors.New("has a lone surrogate")
	}
	return text, nil
}

// data returns the body of the event: for a JSON content type the JSON value unchanged, for others the content of the string.
func data(members map[string]json.RawMessage, contentType string) ([]byte, error) {
	value, plain := members["data"]
	encoded, binary := members["data_base64"]
	switch {
	case plain && binary:
		return nil, errors.New("data and data_base64 are both there")
	case binary:
		text, err := stringOf(encoded)
		if err != nil {
			return nil, fmt.Errorf("data_base64: %w", err)
		}
		body, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, errors.New("data_base64: not base64")
		}
		return body, nil
	case !plain:
		return nil, nil
	}
	if json, _ := isJSON(contentType); json || contentType == "" {
		return value, nil
	}
	text, err := stringOf(value)
	if err != nil {
		return nil, fmt.Errorf("data: %w, as datacontenttype is not JSON", err)
	}
	return []byte(text), nil
}

// isJSON reports whether a media type is JSON, and whether its charset is UTF-8, the only one of RFC 8259. Case and other
// parameters are ignored (RFC 2045).
func isJSON(contentType string) (json, utf8 bool) {
	t, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false, false
	}
	_, subtype, _ := strings.Cut(t, "/")
	return subtype == "json" || strings.HasSuffix(subtype, "+json"), isUTF8(parameters)
}

// isUTF8 reports whether the parameters of a media type mean UTF-8.
func isUTF8(parameters map[string]string) bool {
	switch strings.ToLower(parameters["charset"]) {
	case "", "utf-8", "utf8", "us-ascii":
		return true
	}
	return false
}
