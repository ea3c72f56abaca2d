package rocketmq

import (
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// TestScheduleUsesTheConfiguredClock: Config.Clock decides how far ahead an instant is and whether it has passed.
func TestScheduleUsesTheConfiguredClock(t *testing.T) {
	t.Parallel()
	v := &clock.Virtual{}
	c := &Client{config: Config{Clock: v, TimerHorizon: time.Hour}.withDefaults()}
	c.routes.topics = map[string]*topicRoute{"t": {queues: []queue{{broker: "b"}}}}
	at := time.Now().Add(90 * time.Minute)
	if _, err := c.Schedule(t.Context(), broker.Message{Topic: "t"}, at); !errors.Is(err, broker.ErrBeyondHorizon) {
		t.Errorf("got %v, want ErrBeyondHorizon", err)
	}
	v.Advance(time.Hour)
	// The horizon is checked before the message, whose body is empty.
	if _, err := c.Schedule(t.Context(), broker.Message{Topic: "t"}, at); !errors.Is(err, broker.ErrIllegal) || errors.Is(err, broker.ErrBeyondHorizon) {
		t.Errorf("got %v, want that the message is refused", err)
	}
	v.Advance(time.Hour)
	if err := c.Cancel(t.Context(), broker.Timer{Topic: "t", Due: at}); !errors.Is(err, broker.ErrIllegal) {
		t.Errorf("got %v, want that the instant has passed", err)
	}
}
