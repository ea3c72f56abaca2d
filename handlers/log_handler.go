package handlers

import (
	"context"
	"log/slog"

	"github.com/rocketflow/rocketflow/internal/handling"
)

// NewLogHandler returns a handler that passes records to next and adds, to those that are logged with the context of a
// rocketflow handler, what is handled:
//
//	consumer, event_id, topic, type, subject, attempt
//
// So slog.InfoContext(ctx, "invoice written") in a handler says for which event:
//
//	slog.SetDefault(slog.New(handlers.NewLogHandler(slog.NewJSONHandler(os.Stderr, nil))))
//
// Package tracing has one that adds the trace, too.
func NewLogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if v := handling.From(ctx); v != nil {
		r = r.Clone()
		r.AddAttrs(
			slog.String("consumer", v.Consumer), slog.String("event_id", v.Event.ID.String()), slog.String("topic", v.Event.Topic),
			slog.String("type", v.Event.Type), slog.String("subject", v.Event.Subject), slog.Int("attempt", v.Attempt),
		)
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }
