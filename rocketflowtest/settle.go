package rocketflowtest

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var queriesSQL string

const (
	// minPollInterval and maxPollInterval bound the pause between two checks for work that is left. It grows while nothing
	// changes.
	minPollInterval = 2 * time.Millisecond
	maxPollInterval = 20 * time.Millisecond
	// quietChecks is how many checks in a row must find no work and no change. A single check could miss an event that moves
	// from one place to the next while the check looks at them one after the other.
	quietChecks = 2
)

// Settle waits until no work is left at the present instant: every recorded event has reached the broker, each consumer has
// settled each event of its topics, and no timeout and no retry is due. It fails the test if work is left after
// [Config].SettleTimeout. Work that a service does outside rocketflow is not waited for.
func (e *Env) Settle() {
	e.t.Helper()
	if left := e.TrySettle(e.config.SettleTimeout); left != nil {
		e.t.Fatalf("not settled after %v: %s", e.config.SettleTimeout, strings.Join(left, "; "))
	}
}

// TrySettle is Settle with a timeout of its own, in real time, that does not fail the test. It returns a description of the
// work that is left, or nil if none is. Use it in tests that inject faults: they may have to Advance the clock to the next
// check of half messages, or to the next sweep, before the environment can settle.
func (e *Env) TrySettle(timeout time.Duration) (left []string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	changes, pause := int64(-1), minPollInterval
	for quiet := 0; quiet < quietChecks; {
		left = e.progress.unsettled(e.broker)
		if len(left) == 0 { // PostgreSQL is queried only when the cheap check finds no work
			found, err := e.dueWork(ctx)
			if err != nil && ctx.Err() == nil {
				e.t.Fatalf("settle: %v", err)
			}
			left = found
		}
		if now := e.progress.changes(); now != changes {
			changes, quiet, pause = now, 0, minPollInterval
		} else if len(left) > 0 {
			quiet, pause = 0, min(2*pause, maxPollInterval)
			if err := e.settleParkedCopies(ctx); err != nil && ctx.Err() == nil {
				e.t.Fatalf("settle: %v", err)
			}
		} else {
			quiet++
		}
		select {
		case <-ctx.Done():
			return e.describeWork()
		case <-time.After(pause):
		}
	}
	return nil
}

// describeWork describes all work that could be done now, for the message of a test that fails.
func (e *Env) describeWork() []string {
	ctx, cancel := e.timeout()
	defer cancel()
	work := e.progress.unsettled(e.broker)
	due, err := e.dueWork(ctx)
	if err != nil {
		work = append(work, err.Error())
	}
	if work = append(work, due...); len(work) == 0 {
		work = []string{"events keep coming"}
	}
	return work
}

// settleParkedCopies marks received events as settled that PostgreSQL has as parked already.
func (e *Env) settleParkedCopies(ctx context.Context) error {
	ids := e.progress.received()
	if len(ids) == 0 {
		return nil
	}
	for _, s := range e.running() {
		rows, err := e.pool.Query(ctx, queries.Parse(queriesSQL, s.Schema).Get("ParkedOf"), ids)
		if err != nil {
			return fmt.Errorf("read the parked events of %s: %w", s.Name, err)
		}
		var consumer string
		var id uuid.UUID
		if _, err := pgx.ForEachRow(rows, []any{&consumer, &id}, func() error {
			e.progress.parked(s.groupPrefix+consumer, id)
			return nil
		}); err != nil {
			return fmt.Errorf("read the parked events of %s: %w", s.Name, err)
		}
	}
	return nil
}

// dueWork describes the work of the running services that PostgreSQL shows as due: owed events, timeouts, retries.
func (e *Env) dueWork(ctx context.Context) (work []string, err error) {
	var batch pgx.Batch // one round trip
	for _, s := range e.running() {
		batch.Queue(queries.Parse(queriesSQL, s.Schema).Get("DueWork")).QueryRow(func(row pgx.Row) error {
			var owed, timeouts, parked, waiting int
			var names string
			if err := row.Scan(&owed, &timeouts, &parked, &names, &waiting); err != nil {
				return fmt.Errorf("read the due work of %s: %w", s.Name, err)
			}
			if owed > 0 {
				work = append(work, fmt.Sprintf("%s: %d owed events that the broker hasn't acknowledged", s.Name, owed))
			}
			if timeouts > 0 {
				work = append(work, fmt.Sprintf("%s: %d timeouts due that haven't fired (%s)", s.Name, timeouts, names))
			}
			if parked > 0 {
				work = append(work, fmt.Sprintf("%s: %d parked events due", s.Name, parked))
			}
			if waiting > 0 {
				work = append(work, fmt.Sprintf("%s: %d waiting events of sagas due", s.Name, waiting))
			}
			return nil
		})
	}
	return work, e.pool.SendBatch(ctx, &batch).Close()
}
