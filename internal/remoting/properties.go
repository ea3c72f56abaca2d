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

// DecodeProperties decodes properties that EncodeProperties or a Java client has encoded. It skips entries without a name or a separator, as the
// Java client does.
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
		if name, value, ok := strings.Cut(entry, afterName); ok && name != "" {
			p[name] = value
		} else {
			whole = false
		}
	}
	return p, whole
}

// ValidProperty reports whether a name or a value can be encoded.
func ValidProperty(s string) bool { return !strings.ContainsAny(s, afterName+afterValue) }
