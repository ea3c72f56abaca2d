package saga

import (
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Waits between two attempts at a waiting event: the first, doubled by each further one, and the longest.
const (
	retryBase = time.Second
	retryMax  = time.Hour
	// passingWait is the wait after what doesn't lie in the event, such as a deadlock, and counts no attempt.
	passingWait = 5 * time.Second
)

// verdict says what becomes of a waiting event whose function failed.
type verdict struct {
	settled  bool // the function wants it to be settled without effect
	gaveUp   bool
	attempts int // failed so far
	after    time.Duration
}

// settler is what an error implements that settles an event without effect, as that of handlers.Discard; finisher one
// after which trying again won't help, as that of handlers.Dead.
type (
	settler  interface{ Settles() bool }
	finisher interface{ GivesUp() bool }
)

func (e *Engine) judge(err error, attempts int) verdict {
	var settles settler
	var gives finisher
	var later *rocketflow.RetryAfterError
	switch {
	case errors.Is(err, rocketflow.ErrStale), errors.As(err, &settles) && settles.Settles():
		return verdict{settled: true}
	case errors.As(err, &later):
		return verdict{attempts: attempts, after: max(later.After, 0)}
	case errors.Is(err, rocketflow.ErrBackpressure), isPassing(err):
		return verdict{attempts: attempts, after: passingWait}
	case errors.As(err, &gives) && gives.GivesUp(), errors.Is(err, rocketflow.ErrUndecodable), attempts+1 >= e.cfg.WaitAttempts:
		return verdict{gaveUp: true, attempts: attempts + 1}
	}
	after := retryMax
	if attempts < 12 {
		after = min(retryMax, retryBase<<attempts)
	}
	return verdict{attempts: attempts + 1, after: after}
}

// isPassing: serialization failure, deadlock, lock_timeout; lack of resources, an operator's intervention, system errors,
// and a server that only reads.
func isPassing(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	switch pgErr.Code {
	case "40001", "40P01", "55P03", "25006":
		return true
	case "57014": // statement_timeout or a cancel: the statement's own fault
		return false
	}
	return strings.HasPrefix(pgErr.Code, "53") || strings.HasPrefix(pgErr.Code, "57") || strings.HasPrefix(pgErr.Code, "58")
}

// maxErrorText bounds what is kept of an error.
const maxErrorText = 2000

func errorText(err error) string { return printable.Text(err.Error(), maxErrorText) }

// guarded runs fn and returns an error also if it panics or ends its goroutine.
func guarded(fn func() error) (err error) {
	if failure := guard.Run(func() { err = fn() }); failure != nil {
		return failure
	}
	return err
}
