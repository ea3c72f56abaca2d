package operate

import (
	"testing"
	"time"
)

func TestSinceText(t *testing.T) {
	t.Parallel()
	from := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "2ms", 30 * time.Second: "30s", time.Minute: "1m", 12*time.Minute + 30*time.Second: "12m30s",
		20 * time.Minute: "20m", time.Hour: "1h", time.Hour + 10*time.Minute: "1h10m", 10*time.Hour + 20*time.Minute: "10h20m", 240 * time.Hour: "240h",
	} {
		if got := sinceText(from, from.Add(d)); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
