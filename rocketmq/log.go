package rocketmq

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// clientLog receives what the client logs. Its logger is global and set without synchronisation, so ours is installed
// once, before any client exists, and follows the Config that was opened last.
var clientLog struct {
	install sync.Once
	to      atomic.Pointer[slog.Logger]
}

func adoptClientLog(l *slog.Logger) {
	clientLog.to.Store(l)
	clientLog.install.Do(func() { rlog.SetLogger(rlogger{}) })
}

type rlogger struct{}

// The client's levels are too high for us: its information is about each queue each few seconds, it warns of each attempt,
// and its errors are what we meet and report ourselves.
func (rlogger) Debug(string, map[string]any)              {}
func (rlogger) Info(msg string, fields map[string]any)    { clientSays(slog.LevelDebug, msg, fields) }
func (rlogger) Warning(msg string, fields map[string]any) { clientSays(slog.LevelDebug, msg, fields) }
func (rlogger) Error(msg string, fields map[string]any)   { clientSays(slog.LevelInfo, msg, fields) }
func (rlogger) Fatal(msg string, fields map[string]any)   { clientSays(slog.LevelError, msg, fields) }
func (rlogger) Level(string)                              {}
func (rlogger) OutputPath(string) error                   { return nil }

// clientSays drops fields that hold messages: payloads don't belong in a log, and formatting them races with the
// client.
func clientSays(level slog.Level, msg string, fields map[string]any) {
	l := clientLog.to.Load()
	if l == nil || !l.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(fields)+1)
	attrs = append(attrs, slog.String("from", "rocketmq-client-go"))
	for name, value := range fields {
		switch v := value.(type) {
		case string, bool, int, int32, int64, float64:
			attrs = append(attrs, slog.Any(name, v))
		case error:
			attrs = append(attrs, slog.Any(name, v))
		}
	}
	l.LogAttrs(context.Background(), level, msg, attrs...)
}
