package incidents

import (
	"errors"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
)

// doctor examines the services of the test.
func (w *world) doctor(flags string) string { return "rocketflow doctor" + w.schemas() + flags }

// An event that billing can never handle holds 500 later events of its order.
func TestPoisonEventWithFollowers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startBilling()
	broken := func(e rocketflow.Event) error {
		if e.Type == "order.placed" {
			return handlers.Dead(errors.New("no such article: 8"))
		}
		return nil
	}
	w.bill.Store(&broken)
	poison := w.publish("order.placed", "4711")
	const followers = 500
	for range followers / 50 {
		var events []rocketflow.Payload
		for range 50 {
			events = append(events, rocketflow.Event{Topic: "orders", Type: "order.changed", Subject: "4711", Body: []byte(`{}`)})
		}
		w.shop.Publish(events...)
	}
	w.Settle()
	retry := "rocketflow redrive retry --consumer bills --event " + poison.String()
	w.shows(w.doctor(""), "consumer-dead-letters", "1 dead letter", "rocketflow redrive list --consumer bills")
	shown := w.shows("rocketflow why 4711"+w.schemas(), "stopped", "no such article: 8", "500 events of the stream held behind it", retry)
	w.bill.Store(nil) // billing is mended
	w.mends(shown, retry)
	w.handlesAll(followers + 1)
	w.shows("rocketflow why 4711"+w.schemas(), "verdict: done")
}
