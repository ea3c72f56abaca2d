package clusters

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/test/poll"
)

// maxLines is how many lines a service may log about an outage of a minute: that the connection is lost, that events are owed, what each
// consumer waits for, the counts of what was repeated, and the end of it.
const maxLines = 12

// lines collects the lines of a log.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(bytes.TrimSpace(b)))
	return len(b), nil
}

// take returns the lines since the last call.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

// TestAnOutageOfAMinuteIsAFewLines kills the only broker for a minute, under load. What the service logs, with what its client logs, can be
// read by a human.
func TestAnOutageOfAMinuteIsAFewLines(t *testing.T) {
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a"}})
			log := new(lines)
			s := load(t, cluster.NameServerAddresses(), transport, func(c *app.Config) {
				c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
			})
			s.flowing(time.Now(), time.Minute)
			for _, line := range log.take() {
				t.Logf("at the start: %s", line)
			}
			cluster.Brokers[0].Kill()
			until := time.Now().Add(time.Minute)
			poll.Within(t, 2*time.Minute, "a minute", func() bool { return time.Now().After(until) })
			if err := cluster.Brokers[0].Start(); err != nil {
				t.Fatal(err)
			}
			if err := cluster.AwaitBrokers(bounded(t, 2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			s.flowing(time.Now(), 2*time.Minute)
			s.settle()
			logged := log.take()
			t.Logf("%d lines:\n%s", len(logged), strings.Join(logged, "\n"))
			if len(logged) > maxLines {
				t.Errorf("the service logged %d lines, want at most %d", len(logged), maxLines)
			}
		})
	}
}
