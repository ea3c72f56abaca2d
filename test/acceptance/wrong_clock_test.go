package acceptance

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/outbox"
)

// wrongClock is that of a machine which is wrong.
type wrongClock struct {
	rocketflow.Clock
	by time.Duration
}

func (c wrongClock) Now() time.Time { return c.Clock.Now().Add(c.by) }

// TestAPublishersWrongClockChangesNoRetention sets the publisher's clock weeks behind Postgres' or ahead of it. Its events
// are neither too old for their consumers nor kept longer than others.
func TestAPublishersWrongClockChangesNoRetention(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"behind": -20 * 24 * time.Hour, "ahead": 20 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			box := s.outbox(func(c *outbox.Config) { c.Clock = wrongClock{clock.System{}, by} })
			router := s.router(box)
			router.Handle("ledger", s.topic, "counted", record)
			s.start(router)
			ordered := event{"account", 1, s.topic}
			unordered := rocketflow.Event{Topic: s.topic, Type: "counted", Body: []byte(`{"key":"none","number":2}`)}
			if err := s.publish(box, ordered, unordered); err != nil {
				t.Fatal(err)
			}
			poll.Within(t, 20*time.Second, "both are handled", func() bool { return s.count("SELECT count(*) FROM effect") == 2 })
			if n := s.count("SELECT count(*) FROM parked"); n != 0 {
				t.Errorf("%d events wait or are dead letters", n)
			}
			if n := s.count("SELECT (SELECT count(*) FROM outbox_default) + (SELECT count(*) FROM inbox_default)"); n != 0 {
				t.Errorf("%d rows lie outside of the day by Postgres' clock", n)
			}
		})
	}
}
