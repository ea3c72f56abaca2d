// Package printable makes text that came from outside fit for logs, errors, terminals and tables: bounded, and without
// characters that move a cursor, reorder a line, or can't be seen.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is shown, in bytes.
const (
	Name   = 160     // a subject, a topic, a key
	Reason = 2 << 10 // why something failed, in an error or a log line
)

// Line returns s as one line of at most limit bytes: what is no plain text is escaped as in a Go string, line breaks and
// tabs too, and what is too long ends with an ellipsis.
func Line(s string, limit int) string { return escape(s, limit, false) }

// Text is Line for text of several lines: line breaks and tabs stay.
func Text(s string, limit int) string { return escape(s, limit, true) }

// Quote returns s between quotes, of at most limit bytes of s. What was longer ends with an ellipsis and its length.
func Quote(s string, limit int) string {
	if len(s) <= limit {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%q… (%d bytes)", cut(s, limit), len(s))
}

// Quotes returns a list of texts, each quoted, of at most limit bytes of text. What was longer ends with an ellipsis and
// the number of texts.
func Quotes(list []string, limit int) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len() >= limit {
			fmt.Fprintf(&b, "… (%d)", len(list))
			break
		}
		b.WriteString(Quote(s, Name))
	}
	b.WriteByte(']')
	return b.String()
}

// Error returns err with its text as Line has it. errors.Is and errors.As see err.
func Error(err error, limit int) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if line := Line(text, limit); line != text {
		return &shown{line, err}
	}
	return err
}

// Errorf is fmt.Errorf for texts that hold what came from outside: each string is shown as Line has it, cut to Name, and so
// is the whole, cut to Reason.
func Errorf(format string, args ...any) error {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = Line(s, Name)
		}
	}
	return Error(fmt.Errorf(format, args...), Reason)
}

// shown is an error whose text is not fit to be shown.
type shown struct {
	text string
	err  error
}

func (e *shown) Error() string { return e.text }
func (e *shown) Unwrap() error { return e.err }

const ellipsis = "…"

func escape(s string, limit int, breaks bool) string {
	if len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !isPlain(r, breaks) }) {
		return s
	}
	var b strings.Builder
	end := 0 // where an ellipsis has its place, should not all fit
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+size]
		if r == utf8.RuneError && size == 1 || !isPlain(r, breaks) {
			piece = strconv.Quote(piece)
			piece = piece[1 : len(piece)-1]
		}
		if b.Len()+len(piece) > limit {
			return cut(b.String()[:end], limit-len(ellipsis)) + ellipsis
		}
		b.WriteString(piece)
		if b.Len() <= limit-len(ellipsis) {
			end = b.Len()
		}
		i += size
	}
	return b.String()
}

// cut ends s within limit bytes, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := max(0, limit)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// isPlain leaves the joiners that scripts and emoji need.
func isPlain(r rune, breaks bool) bool {
	switch r {
	case '\n', '\t':
		return breaks
	case '\u200c', '\u200d':
		return true
	case utf8.RuneError: // a character of its own, or the sign of invalid UTF-8, which is found by its size
		return true
	}
	return r >= 0x20 && r < 0x7f || r >= 0xa0 && !unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs)
}
