package acceptance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// What a service calls is away for some minutes, or for hours. By default no event needs a person for that.
func TestFiveMinutesOfFailure(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{5 * time.Minute, 8 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			back := w.Now().Add(away)
			s := startService(t, w, "orders", fx.Invoke(func(r *handlers.Router) {
				r.Handle("ledger", worldTopic, oldType, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
					if w.Now().Before(back) {
						return errors.New("the bank is away")
					}
					return recordAs(oldType)(ctx, tx, e)
				})
			}))
			const events = 20
			for i := range events {
				s.Publish(typed(oldType, fmt.Sprintf("o-%d", i/2), i))
			}
			w.FastForward(24 * time.Hour)
			all, repeated := effects(t, s, oldType)
			if dead := len(s.DeadLetters()); all != events || repeated != 0 || dead != 0 || misordered(t, s) != 0 {
				t.Errorf("a day later: %d effects of %d events, %d of them repeated; %d dead letters", all, events, repeated, dead)
			}
		})
	}
}
