package acceptance

import (
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// TestServicesWithOneConsumerNameGetAllEvents gives the consumers of two services the same name. Each handles every event.
func TestServicesWithOneConsumerNameGetAllEvents(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	mail := startService(t, w, "mail", handle("notifications", oldType))
	sms := startServiceWith(t, w, rocketflowfx.Config{Service: "sms", Topics: envTopics}, handle("notifications", oldType))
	const events = 40
	for i := range events {
		mail.Publish(typed(oldType, fmt.Sprintf("o-%d", i%20), i), typed(oldType, "", i))
	}
	for _, s := range []*rocketflowtest.Service{mail, sms} {
		poll.Within(t, 20*time.Second, s.Name+" has all effects", func() bool {
			all, _ := effects(t, s, oldType)
			return all >= 2*events
		})
		if all, repeated := effects(t, s, oldType); all != 2*events || repeated != 0 || misordered(t, s) != 0 {
			t.Errorf("%s: %d effects, %d of them repeated, want %d once each and in order", s.Name, all, repeated, 2*events)
		}
	}
}
