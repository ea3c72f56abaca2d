package handlers

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
)

// A handler whose events the outbox doesn't take is held, and runs when it does: that is no failed attempt.
func TestBackpressureIsNoFailure(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config() // three attempts
	cfg.Listener = p.listener()
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", failing("held", 5, &rocketflow.BackpressureError{Backlog: 1000, Oldest: time.Minute}))
	b.start(r)
	events := newChain("held").next(3)
	b.broker.publish(events...)
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 3 })
	b.wantOrder("held", events...)
	if got := b.effects("held")[0].Attempt; got != 1 {
		t.Errorf("succeeded at attempt %d, want 1", got)
	}
	if n := b.count("SELECT count(*) FROM parked"); n != 0 || p.get("dead") != 0 {
		t.Errorf("%d parked, %d dead", n, p.get("dead"))
	}
}
