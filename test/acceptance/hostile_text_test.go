package acceptance

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

// isHarmless reports whether a terminal shows text unchanged on one line.
func isHarmless(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
	})
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// TestTextFromOutsideIsHarmlessInErrorsAndLogs checks that errors and log lines show text from outside cut, on one line, and
// without characters that move, hide or reorder other text.
func TestTextFromOutsideIsHarmlessInErrorsAndLogs(t *testing.T) {
	t.Parallel()
	s := setup(t)
	log := &lines{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	box := s.outbox(func(c *outbox.Config) { c.Topics, c.Logger = []string{s.topic}, logger })
	timer := s.timer(func(c *timeout.Config) { c.Logger = logger })
	within := func(fn func(ctx context.Context, tx rocketflow.Tx) error) error {
		return box.Within(t.Context(), fn)
	}
	publish := func(e rocketflow.Event) error {
		return within(func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, e) })
	}
	long := strings.Repeat("x", 1<<20)
	for _, hostile := range []string{
		strings.Repeat("\u009b31m\u202e", 1<<17), "\x1b[2J\r\n\x00\u2066\u2028\ufeff\xff", long, "\u009b", "a\nb", "\u202e",
	} {
		good := func(edit func(*rocketflow.Event)) rocketflow.Event {
			e := rocketflow.Event{Topic: s.topic, Type: "counted", Subject: "k", Body: []byte("{}")}
			edit(&e)
			return e
		}
		for name, call := range map[string]func() error{
			"topic":          func() error { return publish(good(func(e *rocketflow.Event) { e.Topic = hostile })) },
			"topic unlisted": func() error { return publish(good(func(e *rocketflow.Event) { e.Topic = strings.Repeat("t", 127) })) },
			"type":           func() error { return publish(good(func(e *rocketflow.Event) { e.Type = hostile })) },
			"subject":        func() error { return publish(good(func(e *rocketflow.Event) { e.Subject = hostile })) },
			"content type":   func() error { return publish(good(func(e *rocketflow.Event) { e.ContentType = hostile })) },
			"schema":         func() error { return publish(good(func(e *rocketflow.Event) { e.DataSchema = hostile })) },
			"header": func() error {
				return publish(good(func(e *rocketflow.Event) { e.Headers = map[string]string{hostile: "v"} }))
			},
			"reserved header": func() error {
				return publish(good(func(e *rocketflow.Event) { e.Headers = map[string]string{"CE_" + hostile: "v"} }))
			},
			"header's value": func() error {
				return publish(good(func(e *rocketflow.Event) { e.Headers = map[string]string{"a": hostile} }))
			},
			"extension": func() error {
				return publish(good(func(e *rocketflow.Event) { e.Extensions = map[string]string{hostile: "v"} }))
			},
			"extension's": func() error {
				return publish(good(func(e *rocketflow.Event) { e.Extensions = map[string]string{"a": hostile} }))
			},
			"source": func() error {
				_, err := outbox.New(outbox.Config{Pool: s.pool, Broker: s.client, Source: hostile})
				return err
			},
			"timeout's source": func() error {
				_, err := timeout.New(timeout.Config{Pool: s.pool, Broker: s.client, Source: hostile})
				return err
			},
			"gap": func() error {
				return box.RequestMissing(t.Context(), rocketflow.MissingEvents{Source: hostile, Topic: hostile, Subject: hostile, Until: 1})
			},
			"gap's subject": func() error {
				return box.RequestMissing(t.Context(), rocketflow.MissingEvents{Source: "s", Topic: s.topic, Subject: hostile, Until: 0})
			},
			"arm": func() error {
				return within(func(ctx context.Context, tx rocketflow.Tx) error {
					return timer.Arm(ctx, tx, hostile, hostile, time.Time{}, event{"k", 1, s.topic})
				})
			},
			"move": func() error {
				return within(func(ctx context.Context, tx rocketflow.Tx) error {
					_, err := timer.Move(ctx, tx, hostile, "n", time.Time{})
					return err
				})
			},
			"disarm": func() error {
				ctx, cancel := context.WithCancel(t.Context())
				return within(func(_ context.Context, tx rocketflow.Tx) error {
					cancel()
					_, err := timer.Disarm(ctx, tx, hostile, hostile)
					return err
				})
			},
			"history": func() error {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_, err := testoperator.New(t, s.pool, s.schema).Sagas(ctx, operate.SagaFilter{Key: hostile})
				return err
			},
			"send: topic": func() error {
				_, err := s.client.Send(t.Context(), broker.Message{Topic: hostile, Body: []byte("x")})
				return err
			},
			"send: property": func() error {
				_, err := s.client.Send(t.Context(), broker.Message{Topic: s.topic, Body: []byte("x"), Properties: map[string]string{hostile + "\x01": "\x02"}})
				return err
			},
			"send: key": func() error {
				_, err := s.client.Send(t.Context(), broker.Message{Topic: s.topic, Body: []byte("x"), Keys: []string{hostile + " "}})
				return err
			},
			"create topic": func() error { return s.client.CreateTopics(bounded(t, 5*time.Second), broker.Topic{Name: hostile}) },
			"verify topic": func() error { return s.client.VerifyTopics(bounded(t, 5*time.Second), hostile) },
			"subscribe": func() error {
				_, err := s.client.Subscribe(bounded(t, 5*time.Second), broker.Subscription{Group: hostile, Topics: []string{hostile}},
					func(context.Context, broker.Delivery) error { return nil })
				return err
			},
			"open": func() error {
				_, err := rocketmq.Open(bounded(t, 5*time.Second), rocketmq.Config{NameServers: []string{hostile}, Service: hostile})
				return err
			},
			"decode": func() error {
				_, err := wire.DecodeBody[event](rocketflow.Event{Type: hostile, ContentType: hostile, Body: []byte(hostile)})
				return err
			},
		} {
			err := call()
			if err == nil {
				if hostile != "\u202e" { // a subject may have it
					t.Errorf("%s: %.20q is accepted", name, hostile)
				}
				continue
			}
			if !isHarmless(err.Error()) || len(err.Error()) > 5000 {
				t.Errorf("%s: %d bytes: %.500q", name, len(err.Error()), err)
			}
		}
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	for line := range strings.Lines(log.buf.String()) {
		if !isHarmless(strings.TrimSuffix(line, "\n")) || len(line) > 10_000 {
			t.Errorf("log line of %d bytes: %.500q", len(line), line)
		}
	}
}
