package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Timeouts are fired, moved and disarmed by key and name.
func TestTimeoutsAreChanged(t *testing.T) {
	t.Parallel()
	s := seed(t)
	epoch := uuid.NewString()
	s.exec(t, `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		SELECT 'order/4711', name, $1, now() + interval '1 day', now() + interval '1 day', 'shop', 'orders', 'saga.deadline.order', '4711', '', ''
		FROM unnest('{pending,packing,unpaid}'::text[]) name`, epoch)
	due := func(name string) (in time.Duration) {
		var seconds float64
		if err := s.pool.QueryRow(t.Context(), "SELECT extract(epoch FROM due_at - now())::float8 FROM timeout WHERE name = $1 AND next_sweep_at <= now()", name).Scan(&seconds); err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds * float64(time.Second)).Round(time.Minute)
	}
	for _, c := range []struct {
		line, want string
		code       int
	}{
		{"timeouts fire order/4711 pending --by maria", "timeout pending of order/4711 is due", exitOK},
		{"timeouts fire order/4711 pending --event " + epoch, "", exitFailure}, // it has another one now
		{"timeouts move order/4711 packing --to 2h --event " + epoch, "timeout packing of order/4711 is moved", exitOK},
		{"timeouts disarm order/4711 unpaid --yes", "timeout unpaid of order/4711 is disarmed", exitOK},
		{"timeouts disarm order/4711 unpaid --yes", "", exitFailure},
		{"timeouts disarm order/4711 packing", "", exitUsage},
		{"timeouts move order/4711 packing", "", exitUsage},
		{"timeouts move order/4711 packing --to soon", "", exitUsage},
		{"timeouts move order/4711 packing --to -1h", "", exitUsage},
		{"timeouts fire order/4711", "", exitUsage},
		{"timeouts fire order/4711 pending --event x", "", exitUsage},
	} {
		code, stdout, stderr := s.rf(c.line)
		if code != c.code || strings.TrimSpace(stdout) != c.want || (code == exitFailure) != strings.Contains(stderr, "see rocketflow inspect timeouts") {
			t.Errorf("%s: got %d, %s %s", c.line, code, stdout, stderr)
		}
	}
	if fired, moved := due("pending"), due("packing"); fired != 0 || moved != 2*time.Hour {
		t.Errorf("due in %v and %v", fired, moved)
	}
	_, stdout, _ := s.rf("audit")
	wantLines(t, "audit", stdout, "ID AT BY ACTION CHANGED WHAT REASON\n"+
		"3 TIME "+osUser()+" timeout.disarm 1 order/4711/unpaid -\n2 TIME "+osUser()+" timeout.move 1 order/4711/packing -\n1 TIME maria timeout.fire 1 order/4711/pending -\n3 changes")
}
