package outbox

import (
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow/broker"
)

// failureStreak makes a loop log a repeated failure once while its cause is the same, and log how long it lasted when it is
// over. The zero value is ready.
type failureStreak struct {
	cause string // empty: none
	since time.Time
	times int
}

// begins counts a failure and reports whether to log it, because its cause differs from that of the failure before.
func (f *failureStreak) begins(err error) bool {
	f.times++
	cause := cause(err)
	if f.cause == cause {
		return false
	}
	if f.cause == "" {
		f.since, f.times = time.Now(), 1
	}
	f.cause = cause
	return true
}

// end ends the streak; if there was one, it logs message with the number of failures and their duration.
func (f *failureStreak) end(log *slog.Logger, message string) {
	if f.cause != "" {
		log.Info(message, keyFailures, f.times, keyFor, time.Since(f.since).Round(time.Millisecond))
	}
	*f = failureStreak{}
}

// cause returns the same text for errors that differ only in an address or an id.
func cause(err error) string {
	var pgErr *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.Is(err, broker.ErrUnavailable):
		return "broker unavailable"
	case errors.Is(err, errReadOnly):
		return "read only"
	case errors.As(err, &pgErr):
		return pgErr.Code
	case errors.As(err, &connect):
		return "database unavailable"
	}
	return err.Error()
}
