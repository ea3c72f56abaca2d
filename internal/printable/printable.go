// Package printable makes text that came from outside fit for logs, errors, terminals and tables.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s without characters that could move a cursor or reorder a line (control characters of C0 and C1,
// bidirectional marks, invalid UTF-8), each replaced by U+FFFD, and cut to at most limit bytes.
func Text(s string, limit int) string {
	if len(s) > limit {
		n := max(0, limit-len(ellipsis))
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + ellipsis
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

const ellipsis = "…"
