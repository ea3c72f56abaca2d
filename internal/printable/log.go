package printable

import (
	"context"
	"fmt"
	"log/slog"
)

// Logger returns a logger that writes to l with each value escaped and shortened as Line does. logging.Or calls it for the
// Logger of every Config, so code that logs doesn't have to.
func Logger(l *slog.Logger) *slog.Logger {
	if _, done := l.Handler().(handler); done {
		return l
	}
	return slog.New(handler{l.Handler()})
}

// A call stack is text of the program itself and has many lines.
const (
	stackKey = "stack"
	maxStack = 16 << 10
)

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, Line(r.Message, Reason), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(plain(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = plain(a)
	}
	return handler{h.Handler.WithAttrs(out)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }

// plain replaces a value by text only if it has something to escape or to shorten. Other values keep their type.
func plain(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		if a.Key == stackKey {
			a.Value = slog.StringValue(Text(a.Value.String(), maxStack))
			break
		}
		a.Value = slog.StringValue(Line(a.Value.String(), Reason))
	case slog.KindGroup:
		group := a.Value.Group()
		out := make([]slog.Attr, len(group))
		for i, member := range group {
			out[i] = plain(member)
		}
		a.Value = slog.GroupValue(out...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.AnyValue(Error(v, Reason))
		case []string:
			if text := fmt.Sprint(v); Line(text, Reason) != text {
				a.Value = slog.StringValue(Quotes(v, Reason))
			}
		case []byte:
			a.Value = slog.StringValue(Line(string(v), Reason))
		case fmt.Stringer:
			if text := fmt.Sprint(v); Line(text, Reason) != text {
				a.Value = slog.StringValue(Line(text, Reason))
			}
		default: // such as a struct, which is logged with its fields
			if text := fmt.Sprintf("%+v", v); Line(text, Reason) != text {
				a.Value = slog.StringValue(Line(text, Reason))
			}
		}
	}
	return a
}
