package printable

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// IsText tells whether s can be the text of an attribute, a key or a name: valid UTF-8 without control characters and
// noncharacters, as CloudEvents' String. U+FFFD is what other programs put in the place of what was none.
func IsText(s string) bool {
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			return false
		}
	}
	return true
}

// JSON returns a JSON text whose strings say the same, with what is no plain text escaped. It may have line breaks between
// its members.
func JSON(text []byte) []byte {
	if bytes.IndexFunc(text, func(r rune) bool { return !isPlain(r, true) }) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case isPlain(r, true):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default: // control characters below U+0020 stand in no string of a JSON text
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
