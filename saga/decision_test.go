package saga

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

type settlingError struct{ error }

func (settlingError) Settles() bool { return true }

type finalError struct{ error }

func (finalError) GivesUp() bool { return true }

// TestDecisionsAfterAFailure walks through what becomes of a waiting event whose function failed, after two failed attempts.
func TestDecisionsAfterAFailure(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	code := func(c string) error { return fmt.Errorf("pay: %w", &pgconn.PgError{Code: c}) }
	passes := decision{attempts: 2, after: transientPause}
	counted := decision{attempts: 3, after: 4 * time.Second}
	for _, c := range []struct {
		name string
		err  error
		want decision
	}{
		{"an ordinary error", boom, counted},
		{"stale", fmt.Errorf("pay: %w", rocketflow.ErrStale), decision{settled: true}},
		{"an error that settles", settlingError{boom}, decision{settled: true}},
		{"an error after which no attempt succeeds", finalError{boom}, decision{failed: true, attempts: 3}},
		{"undecodable", fmt.Errorf("pay: %w", rocketflow.ErrUndecodable), decision{failed: true, attempts: 3}},
		{"later", &rocketflow.RetryAfterError{After: time.Hour}, decision{attempts: 2, after: time.Hour}},
		{"back-pressure", rocketflow.ErrBackpressure, passes},
		{"a serialization failure", code("40001"), passes},
		{"a deadlock", code("40P01"), passes},
		{"a lock_timeout", code("55P03"), passes},
		{"a lost connection behind Postgres", code("08006"), passes},
		{"a full disk", code("53100"), passes},
		{"a shutdown", code("57P01"), passes},
		{"an I/O error", code("58030"), passes},
		{"a server that only reads", code("25006"), passes},
		{"a statement_timeout", code("57014"), counted},
		{"a row without a partition, which may never pass", code("23514"), counted},
		{"a violated constraint", code("23505"), counted},
	} {
		e := &Engine{cfg: Config{WaitAttempts: 36}}
		if got := e.decide(c.err, 2); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
