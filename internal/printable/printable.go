// Package printable makes text from outside safe to show in logs, errors, terminals and tables: it bounds the length, and
// escapes characters that move a cursor, reorder a line, or are invisible.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of text that is shown, in bytes.
const (
	Name   = 160     // a subject, a topic, a key
	Reason = 2 << 10 // why something failed, in an error or a log line
)

// Line returns s as one line of at most limit bytes. Characters that aren't plain text, including line breaks and tabs, are
// escaped as in a Go string. Text that is too long ends with an ellipsis.
func Line(s string, limit int) string { return escape(s, limit, false) }

// Text is Line for text of several lines: it keeps line breaks and tabs.
func Text(s string, limit int) string { return escape(s, limit, true) }

// Quote returns at most limit bytes of s in quotes. Text that is longer ends with an ellipsis and its length.
func Quote(s string, limit int) string {
	if len(s) <= limit {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%q… (%d bytes)", Cut(s, limit), len(s))
}

// Quotes returns a list of texts, each quoted, of about limit bytes. A list that is longer ends with an ellipsis and the number
// of texts.
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

// Error returns an error that wraps err, with the text of err as Line returns it.
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

// Errorf is fmt.Errorf for arguments from outside: each string is escaped and shortened to Name as by Line, and the whole text
// to Reason.
func Errorf(format string, args ...any) error {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = Line(s, Name)
		}
	}
	return Error(fmt.Errorf(format, args...), Reason)
}

// shown is an error with a text that is safe to show.
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
	end := 0 // where the ellipsis goes if not all fits
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+size]
		if r == utf8.RuneError && size == 1 || !isPlain(r, breaks) {
			piece = strconv.Quote(piece)
			piece = piece[1 : len(piece)-1]
		}
		if b.Len()+len(piece) > limit {
			return Cut(b.String()[:end], limit-len(ellipsis)) + ellipsis
		}
		b.WriteString(piece)
		if b.Len() <= limit-len(ellipsis) {
			end = b.Len()
		}
		i += size
	}
	return b.String()
}

// Cut shortens s to at most limit bytes, at the end of a character.
func Cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := max(0, limit)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// isPlain reports whether r is shown as it is. Joiners are, because scripts and emoji need them.
func isPlain(r rune, breaks bool) bool {
	switch r {
	case '\n', '\t':
		return breaks
	case '\u200c', '\u200d':
		return true
	case utf8.RuneError: // the character U+FFFD itself; the caller finds invalid UTF-8 by its size
		return true
	}
	return r >= 0x20 && r < 0x7f || r >= 0xa0 && !unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs)
}
