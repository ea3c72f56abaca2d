package printable_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// hostile moves cursors, reorders lines, breaks them and is no UTF-8.
const hostile = "a\x1b[2J\u009b31m\r\n\t\x00\u202e\u2066\u200e\u2028\ufeff\U000e0041\xff\xc3é世\u200d"

// isHarmless reports whether s moves, hides and reorders nothing.
func isHarmless(s string, breaks bool) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		if breaks && (r == '\n' || r == '\t') {
			return false
		}
		return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || unicode.Is(unicode.Cf, r) && r != '\u200d' && r != '\u200c'
	})
}

func TestLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "",
		"plain é 世 \U0001f468\u200d\U0001f469": "plain é 世 \U0001f468\u200d\U0001f469",
		"a\nb\tc":             `a\nb\tc`,
		"\x1b[2J\u009b":       `\x1b[2J\u009b`,
		"\xff\u202e":          `\xff\u202e`,
		`back\slash "quoted"`: `back\slash "quoted"`,
		"\ufffd":              "\ufffd",
	} {
		if got := printable.Line(in, 100); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := printable.Text("a\n\tb\r\u2028", 100); got != "a\n\tb\\r\\u2028" {
		t.Errorf("text %q", got)
	}
	if got := printable.Line("0123456789", 8); got != "01234…" {
		t.Errorf("cut: %q", got)
	}
	if got := printable.Quote("a\n\u202e"+strings.Repeat("b", 100), 8); got != `"a\n\u202ebbb"… (105 bytes)` {
		t.Errorf("quote: %s", got)
	}
	if got := printable.Quotes([]string{"a", "b\n", "c", "d"}, 8); got != `["a" "b\n" … (4)]` {
		t.Errorf("quotes: %s", got)
	}
}

func FuzzLine(f *testing.F) {
	f.Add(hostile, 10)
	f.Add(strings.Repeat("\u202e", 100), 50)
	f.Add("\xff\xff\xff", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 8 + min(max(limit, 0), 1<<16)
		for _, breaks := range []bool{false, true} {
			out := printable.Line(s, limit)
			if breaks {
				out = printable.Text(s, limit)
			}
			if len(out) > limit || !isHarmless(out, breaks) {
				t.Errorf("%q to %d bytes: %q", s, limit, out)
			}
		}
		if q := printable.Quote(s, limit); !isHarmless(q, false) || len(q) > 10*limit+40 {
			t.Errorf("quote %q: %s", s, q)
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add(hostile)
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.MarshalIndent(map[string]string{s: s}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		out := printable.JSON(text)
		var want, got map[string]string
		if json.Unmarshal(text, &want) != nil || json.Unmarshal(out, &got) != nil || fmt.Sprint(want) != fmt.Sprint(got) || !isHarmless(string(out), true) {
			t.Errorf("%s became %q", text, out)
		}
	})
}

func TestIsText(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"": true, "é世 \u202e\u00a0": true, "\x00": false, "a\x1fb": false, "\x7f": false, "\u0085": false, "\u009f": false, "\xff": false, "\ufffd": false,
		"\ufdd0": false, "\ufffe": false, "\U0001ffff": false,
	} {
		if printable.IsText(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

type codeError struct{ text string }

func (e *codeError) Error() string { return e.text }

func TestASCII(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"": "", `as "it" is`: `as "it" is`, "é€😀": `\u00e9\u20ac\U0001f600`, "\x00\xff\n": `\x00\ufffd\n`} {
		if got := printable.ASCII(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	long := &codeError{strings.Repeat(hostile, 1<<16)}
	clean := errors.New("clean")
	for _, err := range []error{
		printable.Error(long, printable.Reason), printable.Errorf("do %s: %w", strings.Repeat(hostile, 1<<16), long),
		fmt.Errorf("outer: %w", printable.Errorf("%s of %s: %w", hostile, hostile, long)),
	} {
		var found *codeError
		if !errors.As(err, &found) || found != long || !isHarmless(err.Error(), false) || len(err.Error()) > 2*printable.Reason {
			t.Errorf("%.300q", err)
		}
	}
	if err := printable.Errorf("%s: %w", strings.Repeat("k", 1<<20), clean); !errors.Is(err, clean) || !strings.HasSuffix(err.Error(), ": clean") {
		t.Errorf("a long name hides the cause: %.300q", err)
	}
	if printable.Error(nil, 10) != nil || printable.Error(clean, 10) != clean {
		t.Error("a clean error is changed")
	}
}

type shouting struct{}

func (shouting) LogValue() slog.Value { return slog.GroupValue(slog.String("loud", hostile)) }

// Whatever is logged, and however, a line is one line.
func TestLogger(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		long := strings.Repeat(hostile, 1<<16)
		l := printable.Logger(printable.Logger(slog.New(handler(&out))))
		l.With("with", long).WithGroup("g").Error(long, "text", long, "error", &codeError{long}, "list", []string{long, long}, "bytes", []byte(long),
			"group", slog.GroupValue(slog.String("in", long)), "valuer", shouting{}, "struct", struct{ A string }{long}, "n", 17)
		line := strings.TrimSuffix(out.String(), "\n")
		if !isHarmless(line, false) || len(line) > 10*2*printable.Reason || !strings.Contains(line, "17") {
			t.Errorf("%s: %d bytes: %.500q", name, len(line), line)
		}
	}
}
