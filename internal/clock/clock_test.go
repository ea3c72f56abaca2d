package clock_test

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
)

var (
	_ rocketflow.Clock = clock.System{}
	_ rocketflow.Clock = (*clock.Virtual)(nil)
)

func TestVirtual(t *testing.T) {
	t.Parallel()
	v := &clock.Virtual{}
	minute, _ := v.After(time.Minute)
	hour, _ := v.After(time.Hour)
	stopped, stop := v.After(time.Minute)
	soon, _ := v.After(time.Millisecond)
	<-soon
	stop()
	before := v.Now()
	v.Advance(30 * time.Minute)
	if now := <-minute; now.Sub(before) < 30*time.Minute || v.Offset() != 30*time.Minute {
		t.Errorf("at %v, %v after the advance began; offset %v", now, now.Sub(before), v.Offset())
	}
	select {
	case <-hour:
		t.Error("an hour passed in thirty minutes")
	case <-stopped:
		t.Error("a wait that was given up fired")
	default:
	}
	v.Advance(30 * time.Minute)
	<-hour
}

func TestVirtualNeverGoesBack(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the clock went back")
		}
	}()
	new(clock.Virtual).Advance(-time.Second)
}
