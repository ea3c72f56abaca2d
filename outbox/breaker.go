package outbox

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/rocketflow/rocketflow/broker"
)

// breaker is a circuit breaker: while the broker is away or slow it is open, and transactions don't use half messages, so
// they don't wait for the broker. After a pause a few transactions probe whether the broker is back.
type breaker struct {
	steps *gobreaker.TwoStepCircuitBreaker[struct{}]
}

const (
	breakerStreak  = 3                // so many failures in a row open the breaker
	breakerWindow  = 10 * time.Second // it also opens if half of the transactions of a window failed,
	breakerSample  = 20               // if these are at least so many
	breakerBuckets = 10               // parts of a window
	breakerPause   = 2 * time.Second  // how long it is open before transactions probe the broker
	breakerProbes  = 2                // concurrent probes; all must succeed to close the breaker
)

// errInconclusive is the outcome of a reservation that says nothing about the broker.
var errInconclusive = errors.New("inconclusive")

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
		// A broker that rejects a message responds.
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, broker.ErrRejected) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errInconclusive) },
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

// allow reports whether a transaction may use half messages; if so, outcome must be called once with their result.
func (b *breaker) allow() (outcome func(error), ok bool) {
	outcome, err := b.steps.Allow()
	if err != nil {
		return nil, false
	}
	return outcome, true
}

// open reports whether requests to the broker should not be tried now.
func (b *breaker) open() bool { return b.steps.State() == gobreaker.StateOpen }
