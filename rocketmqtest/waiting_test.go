package rocketmqtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// store stores a message as a client's request would.
func store(t *testing.T, s *Server, properties ...string) *entry {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := map[string]string{}
	for i := 0; i < len(properties); i += 2 {
		p[properties[i]] = properties[i+1]
	}
	r := &request{Command: &remoting.Command{}}
	e, refusal := s.store(r, s.topics["topic"], &remoting.Record{Born: s.clock.Now(), Properties: p, Body: []byte("m")})
	if refusal != nil {
		t.Fatal(refusal.Err())
	}
	return e
}

func (s *Server) ended(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.markEnded(e)
}

func (s *Server) count(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[topic] == nil {
		return 0
	}
	return len(s.topics[topic].queues[0].entries)
}

func (s *Server) planned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schedule.Len()
}

// TestIdleBrokerSchedulesNothing schedules no further tasks while no message waits.
func TestIdleBrokerSchedulesNothing(t *testing.T) {
	t.Parallel()
	s := RunT(t)
	s.CreateTopic("topic", 1)
	rest := s.planned() // what goes on for ever
	s.ended(store(t, s, "TRAN_MSG", "true"))
	s.FastForward(time.Minute)
	if n := s.planned() - rest; n != 0 {
		t.Errorf("with no open half message: %d tasks", n)
	}
	store(t, s, "TRAN_MSG", "true", "PGROUP", "g")
	s.FastForward(time.Minute)
	if n := s.planned() - rest; n != 1 {
		t.Errorf("with an open half message: %d tasks, want the next round", n)
	}
	s.FastForward(maxHalfAge)
	if n := s.planned() - rest; n != 0 || s.count(discardTopic) != 1 {
		t.Errorf("after it was thrown away: %d tasks", n)
	}
	store(t, s, "TIMER_DELAY_SEC", "60")
	store(t, s, "DELAY", "1")
	store(t, s, "DELAY", "1")
	s.FastForward(time.Hour)
	if n := s.planned() - rest; n != 0 || s.count("topic") != 3 {
		t.Errorf("after timers: %d tasks, %d messages", n, s.count("topic"))
	}
}

// TestCrashLosesUnwrittenMarkers loses markers in a crash: half messages that have ended are checked again.
func TestCrashLosesUnwrittenMarkers(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		s := RunT(t)
		s.CreateTopic("topic", 1)
		s.ended(store(t, s, "TRAN_MSG", "true", "PGROUP", "g"))
		if lost {
			s.mu.Lock()
			s.dropVolatileMarkers()
			s.mu.Unlock()
		}
		s.FastForward(time.Minute)
		if n := s.count(halfTopic); (n == 2) != lost { // checked: stored anew
			t.Errorf("lost %v: %d half messages", lost, n)
		}
	}
}

// TestScheduleIsRebuiltFromMessages clears the schedule: everything that waits is scheduled again from the stored messages.
func TestScheduleIsRebuiltFromMessages(t *testing.T) {
	t.Parallel()
	s := RunT(t)
	s.CreateTopic("topic", 1)
	for i := range 3 {
		store(t, s, "TIMER_DELAY_SEC", fmt.Sprint(60*(i+1)))
		store(t, s, "DELAY", fmt.Sprint(i+1))
	}
	s.FastForward(70 * time.Second)
	if n := s.count("topic"); n != 4 {
		t.Fatalf("%d messages delivered, want 4", n)
	}
	store(t, s, "DELAY", "1")
	store(t, s, "TRAN_MSG", "true", "PGROUP", "g")
	s.ended(store(t, s, "TRAN_MSG", "true", "PGROUP", "g"))
	s.mu.Lock()
	s.schedule = schedule{}
	s.rebuildLevels()
	s.rebuildWheel()
	s.rebuildHalves()
	s.mu.Unlock()
	s.FastForward(time.Hour)
	if topic, half, op := s.count("topic"), s.count(halfTopic), s.count(opTopic); topic != 7 || half != 3 || op != 1 {
		t.Errorf("%d messages delivered, %d half messages, %d marks, want 7, 3 and 1", topic, half, op)
	}
}

// TestTrimmedMessagesAreSkipped deletes the oldest messages of the log, waiting ones too: delay levels, timers and half
// messages continue with what is left.
func TestTrimmedMessagesAreSkipped(t *testing.T) {
	t.Parallel()
	s := RunT(t, Config{MaxMessageSize: 1 << 10, MaxBytes: 4 << 10})
	s.CreateTopic("topic", 1)
	for range 30 {
		store(t, s, "TIMER_DELAY_SEC", "60")
		store(t, s, "DELAY", "1")
		store(t, s, "TRAN_MSG", "true", "PGROUP", "g")
	}
	for range 5 {
		s.FastForward(time.Minute)
	}
	e := store(t, s, "TRAN_MSG", "true", "PGROUP", "g")
	s.ended(e)
	s.FastForward(time.Hour)
	s.ended(e) // once more, when the rounds have passed it
	s.FastForward(time.Hour)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.delayLevels[0]; l.next != s.topics[scheduleTopic].queues[0].end() {
		t.Errorf("the level stopped at %d", l.next)
	}
	if len(s.wheel) != 0 || len(s.halves.ended) != 0 || s.log.bytes > s.config.MaxBytes {
		t.Errorf("left: %d slots, %d marks, %d bytes", len(s.wheel), len(s.halves.ended), s.log.bytes)
	}
}

func FuzzRecallHandle(f *testing.F) {
	f.Add("djEgdG9waWMgYnJva2VyLWEgMTc5NTI0OTA4NzAwMSBVMQ==")
	f.Add("djEgICAgIA==")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseRecallHandle(text)
		if err != nil {
			return
		}
		again, err := parseRecallHandle(h.String())
		if err != nil || again != h {
			t.Errorf("%q is %+v, then %+v, %v", text, h, again, err)
		}
	})
}

func FuzzSlot(f *testing.F) {
	f.Add("TIMER_DELIVER_MS\x011795249087050\x02", int64(1795249085565), 0, false)
	f.Add("TIMER_DELAY_SEC\x011\x02TIMER_DELAY_MS\x012\x02", int64(1), 2, false)
	f.Add("__STARTDELIVERTIME\x011795249087050\x02__CANCEL_SCHEDULED_MSG\x01k\x02", int64(1795249085565), 0, true)
	f.Fuzz(func(t *testing.T, properties string, now int64, version int, dms bool) {
		if now < 0 || now > 1<<42 || version < 0 || version > int(RocketMQ55) {
			return
		}
		config := Config{Version: Version(version), DMS: dms}.withDefaults()
		config.Clock.Advance(max(0, time.Until(time.UnixMilli(now))))
		s := &Server{config: config, clock: config.Clock}
		begin := config.Clock.Now().UnixMilli()
		record := &remoting.Record{Properties: remoting.DecodeProperties(properties)}
		isHalf(record)
		slot, refusal := s.slotOf(&request{Command: &remoting.Command{}}, record)
		if refusal != nil || slot == atOnce {
			return
		}
		instant, set, err := s.instantOf(record.Properties, begin)
		end := slot + s.precision()
		if err != nil || !set || slot%s.precision() != 0 || end < instant || end <= begin || end-begin > config.TimerMaxDelay.Milliseconds()+s.precision() {
			t.Errorf("%q at %d: instant %d, slot %d", properties, begin, instant, slot)
		}
	})
}
