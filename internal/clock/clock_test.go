package clock_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
)

var (
	_ rocketflow.Clock = clock.System{}
	_ rocketflow.Clock = (*clock.Virtual)(nil)
)

func TestAdvanceEndsWaits(t *testing.T) {
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

func TestAdvanceClosesMoved(t *testing.T) {
	t.Parallel()
	if clock.Moved(clock.System{}) != nil {
		t.Error("something moves the machine's clock")
	}
	v := &clock.Virtual{}
	first, second := clock.Moved(v), clock.Moved(v)
	v.Advance(time.Second)
	<-first
	<-second
	select {
	case <-clock.Moved(v):
		t.Error("moved again")
	default:
	}
}

func TestStampSetsTheTimeOfAnID(t *testing.T) {
	t.Parallel()
	id := uuid.Must(uuid.NewV7())
	if got := clock.Stamp(clock.System{}, id); got != id {
		t.Errorf("%s became %s", id, got)
	}
	v := &clock.Virtual{}
	v.Advance(10 * 24 * time.Hour)
	got := clock.Stamp(v, id)
	ahead := time.Unix(got.Time().UnixTime()).Sub(time.Unix(id.Time().UnixTime()))
	if got.Version() != 7 || [10]byte(got[6:]) != [10]byte(id[6:]) || (ahead-10*24*time.Hour).Abs() > time.Minute {
		t.Errorf("%s became %s, %v ahead", id, got, ahead)
	}
}
