package operate

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// RetryOptions say how RetryCarefully retries dead letters.
type RetryOptions struct {
	// Rate is the maximum number of dead letters that become due per second. 0: no limit.
	Rate float64
	// TryFirst retries one dead letter first, and the others only once that one is handled.
	TryFirst bool
	// FirstTimeout is how long the first one may take.
	// Defaults to 1 min.
	FirstTimeout time.Duration
}

func (r RetryOptions) withDefaults() RetryOptions {
	if r.FirstTimeout == 0 {
		r.FirstTimeout = time.Minute
	}
	return r
}

func (r RetryOptions) validate() error {
	switch {
	case r.Rate < 0, math.IsNaN(r.Rate), math.IsInf(r.Rate, 0):
		return valid.Fieldf("operate.RetryOptions.Rate", "%v: want events per second, or 0 for no limit", r.Rate)
	case r.FirstTimeout < 0:
		return valid.Fieldf("operate.RetryOptions.FirstTimeout", "%v: want more than 0", r.FirstTimeout)
	}
	return nil
}

// FirstFailedError says that the dead letter that was tried first was not handled. The others were not retried.
type FirstFailedError struct {
	Consumer string
	EventID  string
	State    HandlingState // StateDead: it is a dead letter again; another: it waits for its next attempt or something else
	Reason   string        // its last error, or what it waits for
}

// Error implements error.
func (e *FirstFailedError) Error() string {
	return fmt.Sprintf("event %s, which was tried first, was not handled by %s (%s): %s", e.EventID, e.Consumer, e.State, e.Reason)
}

const (
	firstPoll = 100 * time.Millisecond
	// ratePages is how many transactions a second a rate is divided into.
	ratePages = 10
)

// RetryCarefully retries dead letters as RetryDeadLetters does, with one that is tried first, and at a limited rate. It returns how many
// it made due; with an error, how many before that. If the first isn't handled, the error is a *FirstFailedError: its handler failed
// again, however many attempts it has left, or no process handled it in time. It returns once the last one is due, not handled.
func (o *Operator) RetryCarefully(ctx context.Context, f ParkedFilter, options RetryOptions) (n int, err error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return 0, err
	}
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	op, err := o.operation(ctx, ActionRetryDeadLetters, struct {
		ParkedFilter
		Rate     float64 `json:"rate,omitempty"`
		TryFirst bool    `json:"try_first,omitempty"`
	}{f, options.Rate, options.TryFirst})
	if err != nil {
		return 0, err
	}
	letters, err := o.inbox.Keys(ctx, o.db(), true, f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	if options.TryFirst {
		tried := 0
		for n == 0 && tried < len(letters) { // another operator may have taken it
			if n, err = op.retry(ctx, letters[tried:tried+1]); err != nil {
				return n, fmt.Errorf("retry dead letters: %w", err)
			}
			tried++
		}
		if n == 1 && tried < len(letters) {
			if err := o.awaitFirst(ctx, letters[tried-1], options.FirstTimeout); err != nil {
				return n, fmt.Errorf("retry dead letters: %w", err)
			}
		}
		letters = letters[tried:]
	}
	page, limiter := retryPage, rate.NewLimiter(rate.Inf, retryPage)
	if options.Rate > 0 {
		page = min(retryPage, max(1, int(options.Rate/ratePages)))
		limiter = rate.NewLimiter(rate.Limit(options.Rate), page)
	}
	for chunk := range slices.Chunk(letters, page) {
		if err := limiter.WaitN(ctx, len(chunk)); err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
		done, err := op.retry(ctx, chunk)
		if n += done; err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
	}
	return n, nil
}

// awaitFirst waits until a dead letter that was made due is handled.
func (o *Operator) awaitFirst(ctx context.Context, k inbox.ParkedKey, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(firstPoll)
	defer tick.Stop()
	for {
		a, err := o.inbox.AttemptOf(ctx, o.db(), k)
		failed := &FirstFailedError{Consumer: k.Consumer, EventID: k.EventID, State: HandlingState(a.Reason), Reason: a.LastError}
		switch {
		case err != nil:
			return fmt.Errorf("look for the first: %w", err)
		case a.Gone:
			return nil
		case a.Reason == inbox.DeadLetter, a.Attempts > 0:
			return failed
		case a.Reason == inbox.Paused:
			failed.Reason = "its consumer, its handler or its stream is paused"
			return failed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			failed.Reason = fmt.Sprintf("not within %v: see that a process runs the consumer, and that the event is the first of its stream", limit)
			return failed
		case <-tick.C:
		}
	}
}
