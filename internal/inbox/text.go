package inbox

import (
	"strings"

	"github.com/rocketflow/rocketflow/internal/printable"
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
func CleanKey(s string) string { return printable.Cut(Clean(s), maxKey) }

// ErrorText returns the text of an error for a row, cut to MaxError; empty for nil.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return printable.Cut(Clean(err.Error()), MaxError)
}
