package doctor

import (
	"testing"
	"time"
)

// What a broker says of itself is read without a panic, and its time only in the one form that is known.
func FuzzBrokerState(f *testing.F) {
	f.Add("a=b\nfileReservedTime=72\n\n=x\n", "1795918495995", "[ 0 days, 0 hours, 1 minutes, 9 seconds ]")
	f.Add("", "-1", "[ 99999999999 days, 0 hours, 1 minutes, 9 seconds ]")
	f.Fuzz(func(t *testing.T, settingsText, began, ran string) {
		s := settings{of: properties([]byte(settingsText))}
		if n := s.number("fileReservedTime"); n != 0 && s.missing != "" {
			t.Errorf("%d although it is missing", n)
		}
		now, ok := brokerTime(map[string]string{"bootTimestamp": began, "runtime": ran})
		if !ok && !now.IsZero() {
			t.Errorf("got %v", now)
		}
	})
}

func TestBrokerTime(t *testing.T) {
	t.Parallel()
	now, ok := brokerTime(map[string]string{"bootTimestamp": "1795918495995", "runtime": "[ 1 days, 2 hours, 3 minutes, 4 seconds ]"})
	if want := time.UnixMilli(1795918495995).Add(26*time.Hour + 3*time.Minute + 4*time.Second); !ok || !now.Equal(want) {
		t.Errorf("got %v, %v, want %v", now, ok, want)
	}
}
