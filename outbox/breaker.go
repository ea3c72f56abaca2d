package outbox

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/rocketflow/rocketflow/broker"
)

// breaker spares transactions the wait for a broker that is away or slow. While it is open nobody waits; then some real
// half messages probe whether the broker is back.
type breaker struct {
	steps *gobreaker.TwoStepCircuitBreaker[struct{}]
}

const (
	breakerStreak  = 3 // failures in a row that open it
	breakerSample  = 20
	breakerWindow  = 10 * time.Second // in which half of at least a sample's transactions failed: that opens it, too
	breakerPause   = 2 * time.Second  // how long it is open before it probes
	breakerProbes  = 2                // at once; all must succeed to close it
	breakerBuckets = 10
)

// errNoVerdict is reported where nothing was learned of the broker.
var errNoVerdict = errors.New("no verdict")

// newBreaker returns a closed breaker. changed is called, under its lock, when it opens and when it closes.
func newBreaker(changed func(open bool)) *breaker {
	return &breaker{gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  breakerProbes,
		Interval:     breakerWindow,
		BucketPeriod: breakerWindow / breakerBuckets,
		Timeout:      breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= breakerStreak || c.Requests >= breakerSample && 2*c.TotalFailures >= c.Requests
		},
		// A broker that rejects a message is there.
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, broker.ErrRejected) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateClosed:
				changed(false)
			case from == gobreaker.StateClosed:
				changed(true)
			}
		},
	})}
}

// allow tells whether half messages may be tried; if so, report must be called, once, with what came of them.
func (b *breaker) allow() (report func(error), ok bool) {
	report, err := b.steps.Allow()
	return report, err == nil
}

// open tells whether there is no use in asking the broker for anything now.
func (b *breaker) open() bool { return b.steps.State() == gobreaker.StateOpen }
