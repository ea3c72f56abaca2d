package rocketmq

import (
	"context"
	"log/slog"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
)

// A commit that comes too late is not sent. The checker must hear that, or it would take the event for delivered.
func TestLateDecisionIsNotTaken(t *testing.T) {
	t.Parallel()
	for name, decision := range map[string]broker.Decision{"commit": broker.Commit, "rollback": broker.Rollback} {
		log := slog.New(slog.DiscardHandler)
		client := &Client{listener: (*Listener)(nil).guarded(log), log: log}
		var s *checks
		called, got := false, error(nil)
		s = newChecks(&transactor{client: client, group: "g"}, func(ctx context.Context, _ broker.Check) (broker.Decision, func(error)) {
			s.cancel() // as its deadline would
			<-ctx.Done()
			return decision, func(err error) { called, got = true, err }
		})
		s.answer(broker.Check{})
		if !called || got == nil {
			t.Errorf("%s: done called: %v, with %v; want an error", name, called, got)
		}
	}
}
