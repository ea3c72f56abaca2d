package saga

import (
	"errors"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/pgerror"
	"github.com/rocketflow/rocketflow/internal/printable"
)

const (
	retryBase      = time.Second     // the pause after the first failed attempt at a waiting event; doubled by each further one
	retryMax       = time.Hour       // the longest pause
	transientPause = 5 * time.Second // the pause after a transient error, such as a deadlock, which counts no attempt
)

// decision is what becomes of a waiting event whose function failed.
type decision struct {
	settled  bool          // the event is deleted without an effect
	failed   bool          // the event is not tried again
	attempts int           // failed attempts so far
	after    time.Duration // the pause before the next attempt
}

type (
	// settler is implemented by errors that settle an event without an effect, as that of handlers.Discard.
	settler interface{ Settles() bool }
	// finisher is implemented by errors after which no further attempt can succeed, as that of handlers.Dead.
	finisher interface{ GivesUp() bool }
)

// decide returns what becomes of a waiting event whose function returned err, after this many failed attempts before.
func (e *Engine) decide(err error, attempts int) decision {
	var settles settler
	var finishes finisher
	var retryAfter *rocketflow.RetryAfterError
	switch {
	case errors.Is(err, rocketflow.ErrStale), errors.As(err, &settles) && settles.Settles():
		return decision{settled: true}
	case errors.As(err, &retryAfter):
		return decision{attempts: attempts, after: max(retryAfter.After, 0)}
	case errors.Is(err, rocketflow.ErrBackpressure), pgerror.IsConflict(err), pgerror.IsUnavailable(err):
		return decision{attempts: attempts, after: transientPause}
	case errors.As(err, &finishes) && finishes.GivesUp(), errors.Is(err, rocketflow.ErrUndecodable), attempts+1 >= e.cfg.WaitAttempts:
		return decision{failed: true, attempts: attempts + 1}
	}
	after := retryMax
	if attempts < 12 {
		after = min(retryMax, retryBase<<attempts)
	}
	return decision{attempts: attempts + 1, after: after}
}

// maxErrorText bounds the text of an error that is stored, in bytes.
const maxErrorText = 2000

func errorText(err error) string { return printable.Text(err.Error(), maxErrorText) }

// guarded runs fn and returns an error also if fn panics or ends its goroutine.
func guarded(fn func() error) (err error) {
	if failure := guard.Run(func() { err = fn() }); failure != nil {
		return failure
	}
	return err
}
