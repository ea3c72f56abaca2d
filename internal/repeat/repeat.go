// Package repeat keeps a log short while the same thing goes wrong again and again. A message is written when it comes
// first. The same message for the same cause is then counted, and written once more when its window ends, with how often it
// came and in which time:
//
//	log := repeat.New(config.Logger, repeat.Config{})
//	log.Warn("send failed, the event stays owed", "topic", topic, "error", err) // written
//	log.Warn("send failed, the event stays owed", "topic", topic, "error", err) // counted
//	// a minute later: the message with the attributes of the last one, repeated=1 in=1m0s
//	log.Flush() // by the owner, when nothing of it logs any more
//
// Messages are the same if they have the same level, text, attributes named in Config.Keys, and cause. The cause is the text
// of the attributes that are errors, without what has a digit in it: addresses, ports, ids. Other attributes, such as an
// event's id or the number of an attempt, make no difference.
//
// Each window is twice as long as the one before, up to 16 times the first; when nothing came in one, the next message is
// written at once. Messages below slog.LevelInfo pass. A Logger holds at most 256 messages; while it is full, attributes
// and causes make no difference to what comes new.
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
	// Window is how long a message is counted before it is written again. Default 1 min.
	Window time.Duration

	// Keys are the names of attributes that tell messages apart. Default: DefaultKeys.
	Keys []string
}

// DefaultKeys returns the names of attributes that say for what something failed.
func DefaultKeys() []string {
	return []string{"address", "broker", "consumer", "group", "handler", "name", "partition", "saga", "schema", "source", "table", "topic", "type", "what", "why"}
}

const (
	maxHeld   = 256
	maxDouble = 16 // times the first window
)

// Logger is a slog.Logger that counts repeated messages. Loggers derived from it count with it.
type Logger struct {
	*slog.Logger
	held *held
}

// New returns a Logger that writes to log. Whoever makes it calls Flush when nothing logs with it any more.
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

// Flush writes what was counted. The next message of any kind is written at once.
func (l *Logger) Flush() { l.held.write(true) }

// held are the messages whose repetitions are counted.
type held struct {
	window time.Duration
	keys   map[string]bool

	mu      sync.Mutex
	entries map[string]*entry
	timer   *time.Timer // for the window that ends first; nil: there is none
}

type entry struct {
	next   slog.Handler
	last   slog.Record
	count  int
	since  time.Time // the window's beginning
	window time.Duration
}

// holds tells whether a message of that key is to be counted instead of written.
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

// write writes the messages whose windows have ended, or all.
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
		_ = s.next.Handle(context.Background(), s.record) // there is nobody to tell
	}
}

// handler is the slog.Handler of a Logger.
type handler struct {
	held *held
	next slog.Handler
	key  string // of the attributes that were given to With
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

const maxCause = 512

// cause is an error's text without the words that have a digit: they name an address, a port, an id, an amount.
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
