// Package logging has the logger of whoever configures none.
package logging

import (
	"log/slog"
	"os"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Default writes warnings and errors to stderr: what needs a person must not pass in silence because no Logger was set.
// Whoever wants silence sets a Logger with slog.DiscardHandler.
func Default() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Or returns log, or Default if it is nil. What it writes is fit to be shown, wherever the text came from: see printable.
func Or(log *slog.Logger) *slog.Logger {
	if log == nil {
		log = Default()
	}
	return printable.Logger(log)
}
