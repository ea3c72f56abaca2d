package inbox

import (
	"strings"
	"unicode/utf8"
)

const (
	// maxKey is the maximum length of an indexed column, in bytes: events of other producers may have longer values.
	maxKey = 1000
	// MaxError is the maximum length of an error's text in a row, in bytes.
	MaxError = 4 << 10
)

// Clean makes any bytes into text that Postgres accepts.
func Clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// CleanKey is Clean for indexed columns, which are cut to maxKey.
func CleanKey(s string) string { return cut(Clean(s), maxKey) }

// ErrorText returns the text of an error for a row, cut to MaxError; empty for nil.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return cut(Clean(err.Error()), MaxError)
}

// cut shortens s to at most n bytes, between two characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
