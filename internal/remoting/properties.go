package remoting

import (
	"slices"
	"strings"
)

const (
	afterName  = "\x01"
	afterValue = "\x02"
)

// EncodeProperties encodes the properties of a message. Names and values must not contain the separators \x01 and \x02, for which there is no
// escape: see ValidProperty.
func EncodeProperties(p map[string]string) string {
	size := 0
	names := make([]string, 0, len(p))
	for name, value := range p {
		names = append(names, name)
		size += len(name) + len(value) + 2
	}
	slices.Sort(names)
	var b strings.Builder
	b.Grow(size)
	for _, name := range names {
		b.WriteString(name)
		b.WriteString(afterName)
		b.WriteString(p[name])
		b.WriteString(afterValue)
	}
	return b.String()
}

// PropertyUniqueKey is the name of the property with the unique key that a client gives a message.
const PropertyUniqueKey = "UNIQ_KEY"

// DecodeProperties decodes properties that EncodeProperties or a Java client has encoded. It skips entries without a name or a separator,
// as the Java client does. Of a name that occurs twice the last value counts, but the first of the unique key: brokers such as 4.9.7 and
// 5.3.3 append the properties of a batch, with the batch's key, to those of each member, with the member's own, by which alone the members
// can be told apart.
func DecodeProperties(s string) map[string]string {
	p, _ := decodeProperties(s)
	return p
}

// decodeProperties is DecodeProperties that reports whether no entry was skipped.
func decodeProperties(s string) (p map[string]string, whole bool) {
	p, whole = map[string]string{}, true
	for entry := range strings.SplitSeq(s, afterValue) {
		if entry == "" { // after the last one
			continue
		}
		name, value, ok := strings.Cut(entry, afterName)
		switch {
		case !ok || name == "":
			whole = false
			continue
		case name == PropertyUniqueKey && p[name] != "":
			continue
		}
		p[name] = value
	}
	return p, whole
}

// ValidProperty reports whether a name or a value can be encoded.
func ValidProperty(s string) bool { return !strings.ContainsAny(s, afterName+afterValue) }
