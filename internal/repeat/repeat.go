// Package repeat limits repeated log messages. The first of equal messages is written. Those that follow within a window are
// counted, and written as one message when the window ends, with their number and the length of the window:
//
//	log := repeat.New(config.Logger, repeat.Config{})
//	log.Warn("send failed, the event stays owed", "topic", topic, "error", err) // written
//	log.Warn("send failed, the event stays owed", "topic", topic, "error", err) // counted
//	// a minute later: the message with the attributes of the last one, repeated=1 in=1m0s
//	log.Flush() // by the owner, when nothing logs any more
//
// Messages are equal if they have the same level, text, values of the attributes in Config.Keys, and cause. The cause is the
// text of the attributes that are errors, without the words that contain a digit, such as addresses, ports and ids. Other
// attributes, such as an event's id or the number of an attempt, are ignored.
//
// Each window is twice as long as the one before, up to 16 times the first. If no message came in a window, the next one is
// written at once. Messages below slog.LevelInfo are always written. A Logger tracks at most 256 different messages; while it
// is full, it distinguishes further messages by their level and text alone.
package repeat

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Config configures a Logger.
type Config struct {
	// Window is the length of the first window.
	// Defaults to 1 min.
	Window time.Duration

	// Keys are the names of the attributes that distinguish messages.
	// Defaults to DefaultKeys.
	Keys []string
}

// DefaultKeys returns the names of attributes that identify what failed.
func DefaultKeys() []string {
	return []string{"address", "broker", "consumer", "group", "handler", "name", "partition", "saga", "schema", "source", "table", "topic", "type", "what", "why"}
}

const (
	maxHeld   = 256
	maxDouble = 16 // times the first window
)

// Logger is a slog.Logger that limits repeated messages. Loggers that are derived from it share its counts.
type Logger struct {
	*slog.Logger
	held *held
}

// New returns a Logger that writes to log. The caller must call Flush when nothing logs to it any more.
func New(log *slog.Logger, config Config) *Logger {
	h := &held{window: cmp.Or(config.Window, time.Minute), keys: map[string]bool{}, entries: map[string]*entry{}}
	names := config.Keys
	if names == nil {
		names = DefaultKeys()
	}
	for _, name := range names {
		h.keys[name] = true
	}
	return &Logger{slog.New(&handler{held: h, next: log.Handler()}), h}
}

// Flush ends all windows and writes the counted messages. The next message is written at once.
func (l *Logger) Flush() { l.held.write(true) }

// held tracks the messages whose repetitions are counted.
type held struct {
	window time.Duration
	keys   map[string]bool

	mu      sync.Mutex
	entries map[string]*entry
	timer   *time.Timer // of the window that ends first, or nil
}

// entry is a message in its window.
type entry struct {
	next   slog.Handler
	last   slog.Record
	count  int
	since  time.Time // the window's beginning
	window time.Duration
}

// holds counts a message if an equal one is in its window, and returns true then. Otherwise it begins a window, and the caller
// writes the message. short is the key while the Logger is full.
func (h *held) holds(key, short string, next slog.Handler, r slog.Record) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.entries[key]
	if e == nil && len(h.entries) >= maxHeld {
		key = short
		e = h.entries[key]
	}
	if e != nil {
		e.next, e.last = next, r.Clone()
		e.count++
		return true
	}
	h.entries[key] = &entry{next: next, since: time.Now(), window: h.window}
	if h.timer == nil {
		h.timer = time.AfterFunc(h.window, func() { h.write(false) })
	}
	return false
}

// write writes the counted messages of the windows that have ended, or of all.
func (h *held) write(all bool) {
	type summary struct {
		next   slog.Handler
		record slog.Record
	}
	var ended []summary
	h.mu.Lock()
	now := time.Now()
	var first time.Duration
	for key, e := range h.entries {
		if left := e.window - now.Sub(e.since); left > 0 && !all {
			if first == 0 || left < first {
				first = left
			}
			continue
		}
		if e.count > 0 {
			r := e.last
			r.AddAttrs(slog.Int("repeated", e.count), slog.Duration("in", now.Sub(e.since).Round(time.Millisecond)))
			ended = append(ended, summary{e.next, r})
		}
		if e.count == 0 || all {
			delete(h.entries, key)
			continue
		}
		e.count, e.since, e.window = 0, now, min(2*e.window, maxDouble*h.window)
		if first == 0 || e.window < first {
			first = e.window
		}
	}
	switch {
	case first > 0 && h.timer != nil:
		h.timer.Reset(first)
	case h.timer != nil:
		h.timer.Stop()
		h.timer = nil
	}
	h.mu.Unlock()
	for _, s := range ended {
		_ = s.next.Handle(context.Background(), s.record) // the error of a log handler can't be reported
	}
}

// handler is the slog.Handler of a Logger.
type handler struct {
	held *held
	next slog.Handler
	key  string // the part of the key that comes from the attributes of With
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		var key strings.Builder
		short := r.Level.String() + "\x00" + r.Message
		key.WriteString(short + h.key)
		r.Attrs(func(a slog.Attr) bool {
			h.held.appendKey(&key, a)
			return true
		})
		if h.held.holds(key.String(), short, h.next, r) {
			return nil
		}
	}
	return h.next.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var key strings.Builder
	key.WriteString(h.key)
	for _, a := range attrs {
		h.held.appendKey(&key, a)
	}
	return &handler{h.held, h.next.WithAttrs(attrs), key.String()}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.held, h.next.WithGroup(name), h.key}
}

// appendKey appends the attribute to the key of a message if it distinguishes messages.
func (h *held) appendKey(key *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve()
	err, isError := v.Any().(error)
	switch {
	case v.Kind() == slog.KindAny && isError && err != nil:
		key.WriteString("\x00" + a.Key + "=" + cause(err.Error()))
	case h.keys[a.Key]:
		key.WriteString("\x00" + a.Key + "=" + v.String())
	}
}

// maxCause bounds the text of a cause, in bytes.
const maxCause = 512

// cause returns the text of an error with each word that contains a digit, such as a port or an id, replaced by #.
func cause(text string) string {
	if len(text) > maxCause {
		text = text[:maxCause]
	}
	var b strings.Builder
	for len(text) > 0 {
		n := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		switch {
		case n < 0:
			n = len(text)
		case n == 0:
			n = 1
		}
		word := text[:n]
		if strings.ContainsFunc(word, unicode.IsDigit) {
			word = "#"
		}
		b.WriteString(word)
		text = text[n:]
	}
	return b.String()
}
