package repeat_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rocketflow/rocketflow/internal/repeat"
)

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last call, and forgets it.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.b.String())
	l.b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func logger(out *lines, config repeat.Config) *repeat.Logger {
	return repeat.New(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), config)
}

func want(t *testing.T, out *lines, want ...string) {
	t.Helper()
	got := out.take()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got lines\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestRepeatedMessagesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log := logger(&out, repeat.Config{})
		refused := func(port int) error { return fmt.Errorf("dial 127.0.0.1:%d: connection refused", port) }
		for i := range 120 { // a minute
			log.Warn("send failed", "topic", "orders", "event_id", i, "error", refused(40000+i))
			time.Sleep(500 * time.Millisecond)
		}
		synctest.Wait()
		want(t, &out,
			`level=WARN msg="send failed" topic=orders event_id=0 error="dial 127.0.0.1:40000: connection refused"`,
			`level=WARN msg="send failed" topic=orders event_id=119 error="dial 127.0.0.1:40119: connection refused" repeated=119 in=1m0s`)
		log.Warn("send failed", "topic", "orders", "event_id", 120, "error", refused(1))
		time.Sleep(time.Minute)
		want(t, &out) // the second window is twice as long
		time.Sleep(time.Minute + time.Millisecond)
		want(t, &out, `level=WARN msg="send failed" topic=orders event_id=120 error="dial 127.0.0.1:1: connection refused" repeated=1 in=2m0s`)
		time.Sleep(5 * time.Minute)
		want(t, &out)
		log.Warn("send failed", "topic", "orders", "event_id", 121, "error", refused(1))
		want(t, &out, `level=WARN msg="send failed" topic=orders event_id=121 error="dial 127.0.0.1:1: connection refused"`)
	})
}

func TestMessagesDifferByKeysAndCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log := logger(&out, repeat.Config{})
		err := errors.New("refused")
		different := []func(){
			func() { log.Warn("a", "topic", "x", "error", err) },
			func() { log.Error("a", "topic", "x", "error", err) },
			func() { log.Warn("b", "topic", "x", "error", err) },
			func() { log.Warn("a", "topic", "y", "error", err) },
			func() { log.Warn("a", "topic", "x", "error", errors.New("reset")) },
			func() { log.With("group", "g1").Warn("a", "topic", "x", "error", err) },
			func() { log.With("group", "g2").Warn("a", "topic", "x", "error", err) },
		}
		for range 3 {
			for _, say := range different {
				say()
			}
		}
		if got := out.take(); len(got) != len(different) {
			t.Errorf("got %d lines, want %d: %v", len(got), len(different), got)
		}
		log.Debug("details")
		log.Debug("details")
		want(t, &out, "level=DEBUG msg=details", "level=DEBUG msg=details")
		log.Flush()
		if got := out.take(); len(got) != len(different) || !strings.HasSuffix(got[0], "repeated=2 in=0s") {
			t.Errorf("got %v of a flush, want %d lines", got, len(different))
		}
		log.Flush()
		want(t, &out)
		different[0]()
		want(t, &out, "level=WARN msg=a topic=x error=refused")
		log.Flush()
	})
}

// Text that others choose, such as that of an error, can fill neither the memory nor the log.
func TestNumberOfMessagesIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log := logger(&out, repeat.Config{})
		letters := strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j")
		for i := range 10_000 {
			log.Warn("bad input", "error", errors.New(letters.Replace(fmt.Sprint(i))))
		}
		if n := len(out.take()); n > 300 {
			t.Errorf("%d lines", n)
		}
		log.Flush()
		if n := len(out.take()); n != 1 {
			t.Errorf("%d summaries, want one of all that didn't fit", n)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	var out lines
	log := logger(&out, repeat.Config{Window: time.Millisecond})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				log.Warn("busy", "topic", fmt.Sprint(j%3), "n", i)
				if j%100 == 0 {
					log.Flush()
				}
			}
		})
	}
	all.Wait()
	log.Flush()
	total := 0
	for _, line := range out.take() {
		_, count, repeated := strings.Cut(line, "repeated=")
		n := 1
		if repeated {
			_, _ = fmt.Sscan(count, &n)
		}
		total += n
	}
	if total != 8000 {
		t.Errorf("lines stand for %d messages, want 8000", total)
	}
}
