package rocketmq

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// clientLog receives the log of rocketmq-client-go, whose logger is global and set without synchronization. It is therefore installed
// once, before the first Client exists, and writes to the logger of the Client that was opened last.
var clientLog struct {
	install sync.Once
	to      atomic.Pointer[slog.Logger]
}

func redirectClientLog(l *slog.Logger) {
	clientLog.to.Store(l)
	clientLog.install.Do(func() { rlog.SetLogger(clientLogger{}) })
}

// clientLogger implements rlog.Logger. It lowers the levels: rocketmq-client-go logs information about each queue every few seconds and
// warnings for each attempt, and its errors are those that this package returns or logs itself.
type clientLogger struct{}

// Debug implements rlog.Logger. It logs nothing.
func (clientLogger) Debug(string, map[string]any) {}

// Info implements rlog.Logger.
func (clientLogger) Info(msg string, fields map[string]any) {
	logFromClient(slog.LevelDebug, msg, fields)
}

// Warning implements rlog.Logger.
func (clientLogger) Warning(msg string, fields map[string]any) {
	logFromClient(slog.LevelDebug, msg, fields)
}

// Error implements rlog.Logger.
func (clientLogger) Error(msg string, fields map[string]any) {
	logFromClient(slog.LevelInfo, msg, fields)
}

// Fatal implements rlog.Logger. It doesn't exit.
func (clientLogger) Fatal(msg string, fields map[string]any) {
	logFromClient(slog.LevelError, msg, fields)
}

// Level implements rlog.Logger. The level is that of Config.Logger.
func (clientLogger) Level(string) {}

// OutputPath implements rlog.Logger. The log goes to Config.Logger.
func (clientLogger) OutputPath(string) error { return nil }

// logFromClient leaves out fields that hold messages: a log is no place for payloads, and formatting them races with
// rocketmq-client-go.
func logFromClient(level slog.Level, msg string, fields map[string]any) {
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
