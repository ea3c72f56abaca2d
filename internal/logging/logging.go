// Package logging provides the Logger of a Config that has none.
package logging

import (
	"log/slog"
	"os"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Default returns a logger that writes warnings and errors to stderr, so that a message for an operator is not lost because no
// Logger was set. An application that wants no log sets a Logger with slog.DiscardHandler.
func Default() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Or returns log, or Default if log is nil, as a logger that escapes and shortens text from outside: see package printable.
func Or(log *slog.Logger) *slog.Logger {
	if log == nil {
		log = Default()
	}
	return printable.Logger(log)
}
