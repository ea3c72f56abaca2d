package timeout_test

import (
	"maps"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/timeout"
)

// All fields of an event are delivered: after a hand-over, by the sweep, and after a move.
func TestEventIsDeliveredUnchanged(t *testing.T) {
	t.Parallel()
	want := rocketflow.Event{
		Topic: "orders", Type: "note", Subject: "o1", ContentType: "text/plain; charset=utf-8", DataSchema: "https://example.com/note",
		Extensions: map[string]string{"traceparent": "00-1"}, Headers: map[string]string{"tenant": "acme"},
	}
	for name, lost := range map[string]bool{"handed over": false, "lost": true} {
		for _, move := range []bool{false, true} {
			for _, body := range []string{"", "\x00", "a"} {
				want := want
				want.Body = []byte(body)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					b := setup(t, func(_ *timeout.Config, m *fakeBroker) { m.loseAll = lost }).start(t)
					err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
						if err := b.Arm(t.Context(), tx, "k", "n", time.Now().Add(100*time.Millisecond), want); err != nil || !move {
							return err
						}
						_, err := b.Move(t.Context(), tx, "k", "n", time.Now().Add(50*time.Millisecond))
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					e := b.waitFired(t)
					if e.Type != want.Type || e.ContentType != want.ContentType || e.DataSchema != want.DataSchema || !maps.Equal(e.Extensions, want.Extensions) ||
						!maps.Equal(e.Headers, want.Headers) || string(e.Body) != body {
						t.Errorf("%+v fired as %+v", want, e)
					}
				})
			}
		}
	}
}
