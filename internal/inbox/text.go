package inbox

import (
	"strings"
	"unicode/utf8"
)

const (
	// maxKey bounds what Postgres must index of an event that some other producer sent, in bytes.
	maxKey = 1000
	// MaxError is how much of an error's text a row keeps, in bytes.
	MaxError = 4 << 10
)

// Clean makes any bytes into text that Postgres takes.
func Clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// CleanKey is Clean for what is indexed.
func CleanKey(s string) string { return cut(Clean(s), maxKey) }

// ErrorText returns the text of an error as a row keeps it; empty for nil.
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
