package outbox

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
)

// subscriber holds one subscription between start and stop. It subscribes in the background and retries until it succeeds,
// because an outbox publishes without it.
type subscriber struct {
	outbox    *Outbox
	what      string // what is received, for logs
	retry     time.Duration
	subscribe func(ctx context.Context) (broker.Consumer, error)
	failed    func(err error) // an attempt to subscribe failed
	group     background.Group
}

// unsubscribeTimeout bounds the wait for the end of a subscription.
const unsubscribeTimeout = 5 * time.Second

func (s *subscriber) start() {
	_ = s.group.Start(context.Background(), func(context.Context) error {
		s.group.Go(s.run)
		return nil
	})
}

// stop ends the subscription and waits for its end until ctx ends.
func (s *subscriber) stop(ctx context.Context) { _ = s.group.Stop(ctx) }

func (s *subscriber) run(ctx context.Context) {
	background.Loop{Clock: s.outbox.config.Clock}.Run(ctx, func(ctx context.Context) time.Duration {
		consumer, err := s.subscribe(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.failed(err)
			}
			return s.retry
		}
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), unsubscribeTimeout)
		defer cancel()
		if err := consumer.Stop(end); err != nil {
			s.outbox.log.Warn("a subscription could not be ended in time and ends later", keyWhat, s.what, keyError, err)
		}
		return 0
	})
}
