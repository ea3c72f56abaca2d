package outbox

import (
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow/broker"
)

// trouble has a loop say once what keeps failing for the same cause, and at the end how long it did.
type trouble struct {
	cause string // empty: none
	since time.Time
	times int
}

// begins tells whether the error has another cause than the one before, and is to be logged.
func (t *trouble) begins(err error) bool {
	t.times++
	cause := cause(err)
	if t.cause == cause {
		return false
	}
	if t.cause == "" {
		t.since, t.times = time.Now(), 1
	}
	t.cause = cause
	return true
}

func (t *trouble) ends(log *slog.Logger, message string) {
	if t.cause != "" {
		log.Info(message, "failures", t.times, "for", time.Since(t.since).Round(time.Millisecond))
	}
	*t = trouble{}
}

// cause is the same text for errors that differ in an address or an id.
func cause(err error) string {
	var pgErr *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.Is(err, broker.ErrUnavailable):
		return "broker away"
	case errors.Is(err, errReadOnly):
		return "read only"
	case errors.As(err, &pgErr):
		return pgErr.Code
	case errors.As(err, &connect):
		return "database away"
	}
	return err.Error()
}
