package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// seen is an event of a topic that the broker doesn't have.
func seen(subject string) rocketflow.Event {
	return rocketflow.Event{Topic: "missing", Type: "seen", Subject: subject, Body: []byte("{}")}
}

func (b *bundle) publishOne(ctx context.Context, p rocketflow.Payload) error {
	return b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, p) })
}

// loggedLines collects the lines of a log.
type loggedLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *loggedLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *loggedLines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// Publish refuses events of a topic whose events the broker rejects, and accepts those of others.
func TestRejectedTopicIsRefusedAlone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var log loggedLines
	config := func(c *outbox.Config) {
		c.MaxBacklog, c.Path = 50, outbox.Relay
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}
	b := setup(t, config)
	other := &bundle{pool: b.pool, schema: b.schema, broker: b.broker, outbox: b.start(t, config)}
	b.broker.reject("missing")
	published := 0
	var refused *rocketflow.BackpressureError
	poll.Until(t, "the topic is refused", func() bool {
		err := b.publishOne(ctx, seen(fmt.Sprint(published%7)))
		if err == nil {
			published++
		}
		return errors.As(err, &refused) && refused.Topic != ""
	})
	if refused.Topic != "missing" || refused.Backlog < 50 || !strings.Contains(refused.Error(), broker.ErrTopicNotFound.Error()) {
		t.Errorf("refused by %v", refused)
	}
	poll.Until(t, "other topics are not refused", func() bool { return b.credit(ctx, "a", 1) == nil })
	poll.Until(t, "the other process refuses the topic, too", func() bool {
		err := other.publishOne(ctx, seen("x"))
		if err == nil {
			published++
		}
		return errors.As(err, &refused) && refused.Topic == "missing"
	})
	if err := other.credit(ctx, "a", 1); err != nil {
		t.Errorf("another topic in another process: %v", err)
	}
	if n, _, err := other.outbox.Backlog(ctx); err != nil || n < 50 {
		t.Errorf("the backlog is %d (%v), want the rejected events included", n, err)
	}
	if r := b.outbox.Rejected(); len(r) != 1 || r[0].Topic != "missing" || r[0].Events < 50 || r[0].Reason == "" {
		t.Errorf("rejected are %v", r)
	}
	// Each of the two processes logs it once, and again if the sweep counts so late that the process takes the topic for accepted.
	if n := log.count("the broker rejects events"); n > 6 {
		t.Errorf("of %d rejected events %d were logged, want one for each of two processes", published, n)
	}

	b.broker.reject("")
	poll.Until(t, "all is out", func() bool { return b.count(t, "outbox_ack") == b.count(t, "outbox") })
	poll.Until(t, "the topic is taken again", func() bool { return b.publishOne(ctx, seen("y")) == nil && other.publishOne(ctx, seen("y")) == nil })
	poll.Until(t, "nothing is rejected", func() bool { return len(b.outbox.Rejected()) == 0 && b.count(t, "outbox_rejected") == 0 })
	if n := b.count(t, "outbox_rejected_topic"); n != 0 {
		t.Errorf("%d topics are still noted as rejected", n)
	}
}

// However many events of however many transactions can't be sent, a pass doesn't come back to them.
func TestSweepReadsRejectedEventsOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	b.broker.reject("missing")
	const n = 300 // more than the sweep's row remembers of transactions to look at again
	for i := range n {
		if err := b.publishOne(ctx, seen(fmt.Sprint(i%3))); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "all are noted", func() bool { return b.count(t, "outbox_rejected") == n })
	poll.Until(t, "the mark is past them", func() bool {
		var behind int
		err := b.pool.QueryRow(ctx, "SELECT count(*) FROM outbox WHERE xid >= (SELECT mark FROM outbox_sweep)").Scan(&behind)
		return err == nil && behind == 0
	})
}

// Of a rejected topic one event is tried from time to time, not each.
func TestRejectedTopicIsProbedWithOneEvent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var tried, passes atomic.Int64
	b := setup(t, func(c *outbox.Config) {
		c.Path = outbox.Relay
		c.Listener = &outbox.Listener{
			Relayed: func(i outbox.RelayedInfo) {
				if i.Swept {
					tried.Add(1)
				}
			},
			Swept: func(outbox.SweptInfo) { passes.Add(1) },
		}
	})
	b.broker.reject("missing")
	for i := range 100 {
		if err := b.publishOne(ctx, seen(fmt.Sprint(i%3))); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "all are noted", func() bool { return b.count(t, "outbox_rejected") == 100 })
	poll.Until(t, "it was tried twice", func() bool {
		var n int
		return b.pool.QueryRow(ctx, "SELECT attempts FROM outbox_rejected_topic").Scan(&n) == nil && n >= 3
	})
	if n := tried.Load(); n > 4 {
		t.Errorf("%d attempts, want some 2", n)
	}
	b.broker.reject("")
	poll.Until(t, "all are out", func() bool { return len(b.broker.events()) == 100 })
	chain(t, b.broker.events())
}
