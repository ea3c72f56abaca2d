package printable

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// IsText reports whether s can be the value of an attribute, a key or a name: valid UTF-8 without control characters and
// noncharacters, as the type String of CloudEvents. U+FFFD is refused, because other programs put it in the place of invalid
// text.
func IsText(s string) bool {
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			return false
		}
	}
	return true
}

// JSON returns an equal JSON text in which characters that aren't plain text are escaped. It keeps line breaks between the
// members.
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
		default: // never below U+0020: a string of a JSON text has no control characters
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// ASCII returns s with all but printable ASCII escaped: text that a database of any encoding stores.
func ASCII(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= ' ' && r <= '~' {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}
