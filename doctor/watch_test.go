package doctor

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/test/poll"
)

// A started doctor examines again and again; a finding is logged when it begins and when it is gone.
func TestStartedDoctor(t *testing.T) {
	t.Parallel()
	w := &world{T: t}
	w.broker()
	w.set("transactionCheckMax", "3")
	var log lockedBuffer
	var examined atomic.Int32
	virtual := new(clock.Virtual)
	w.config = Config{Broker: w.config.Broker, Only: []string{"broker-check-window"}, Clock: virtual, Interval: time.Hour,
		Examined: func(*Report) { examined.Add(1) }, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	d, err := New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Stop(context.Background()) }()
	// await moves the clock until a report is as wanted.
	await := func(what string, wanted func(*Report) bool) {
		t.Helper()
		poll.Until(t, what, func() bool {
			virtual.Advance(2 * time.Hour)
			r := d.Last()
			return r != nil && wanted(r)
		})
	}
	await("a finding", func(r *Report) bool { return len(r.Findings()) == 1 })
	before := examined.Load()
	await("a third examination", func(*Report) bool { return examined.Load() >= before+2 })
	w.set("transactionCheckMax", "15")
	await("no finding", func(r *Report) bool { return len(r.Findings()) == 0 })
	poll.Until(t, "its log", func() bool { return strings.Contains(log.String(), "is gone") })
	if err := d.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "has found something") != 1 || strings.Count(text, "is gone") != 1 || !strings.Contains(text, "code=broker-check-window") {
		t.Errorf("log: %s", text)
	}
	if d.Last() != nil {
		t.Error("a stopped doctor has a last report")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
