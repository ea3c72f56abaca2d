package migrations

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// Holder is a session of Postgres that a migration waits for: it migrates the schema, or has used one of the schema's tables in
// an open transaction. Fields that Postgres doesn't show to the migrating role are empty.
type Holder struct {
	// PID is the process id of the session's backend, for pg_terminate_backend.
	PID int32
	// Role is the role of the session.
	Role string
	// Application is the application_name of the session.
	Application string
	// Address is the address of the client.
	Address string
	// State is the state in pg_stat_activity, such as "idle in transaction".
	State string
	// Since is the age of the session's transaction.
	Since time.Duration
}

// String returns the fields that are set, on one line.
func (h Holder) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "process %d", h.PID)
	for _, part := range []struct{ name, value string }{
		{"role", h.Role}, {"application", h.Application}, {"address", h.Address}, {"state", h.State},
	} {
		if part.value != "" {
			fmt.Fprintf(&b, ", %s %s", part.name, printable.Text(part.value, 100))
		}
	}
	if h.Since > 0 {
		fmt.Fprintf(&b, ", in a transaction for %v", h.Since.Round(time.Second))
	}
	return b.String()
}

// WaitError is the error of a migration whose context ended while it waited for other sessions.
type WaitError struct {
	// For are the sessions that the migration last waited for.
	For []Holder
	// Err is the cause, usually the error of the context.
	Err error
}

// Error returns the sessions and the cause.
func (e *WaitError) Error() string {
	names := make([]string, len(e.For))
	for i, h := range e.For {
		names[i] = h.String()
	}
	return fmt.Sprintf("waited for %s: %v", strings.Join(names, "; "), e.Err)
}

// Unwrap returns the cause.
func (e *WaitError) Unwrap() error { return e.Err }

// watchInterval is the pause between two queries for the sessions that a migration waits for.
const watchInterval = 500 * time.Millisecond

// waitWatcher finds the sessions that a migration waits for.
type waitWatcher struct {
	pool     *pgxpool.Pool
	sql      queries.Set
	notify   func(Holder)
	notified map[int32]bool

	mu   sync.Mutex // guards what follows
	last []Holder   // the sessions that the last query found
}

// watch watches what the session pid waits for, on a connection of its own, until the returned function is called. As long as
// the pool has no free connection, it finds nothing.
func (w *waitWatcher) watch(ctx context.Context, pid int32) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			rows, err := lazytx.On(w.pool).Query(ctx, w.sql.Get("Blockers"), pid)
			if err != nil {
				continue // the result only explains the wait
			}
			holders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holder, err error) {
				var seconds float64
				err = row.Scan(&h.PID, &h.Role, &h.Application, &h.Address, &h.State, &seconds)
				h.Since = time.Duration(seconds * float64(time.Second))
				return h, err
			})
			if err == nil {
				w.found(holders)
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// found notes the sessions of one query, and reports those that are new.
func (w *waitWatcher) found(holders []Holder) {
	w.mu.Lock()
	w.last = holders
	w.mu.Unlock()
	for _, h := range holders {
		if w.notified[h.PID] {
			continue
		}
		if w.notified == nil {
			w.notified = map[int32]bool{}
		}
		w.notified[h.PID] = true
		w.notify(h)
	}
}

// explain returns a *WaitError for the error of a migration whose context ended while it waited.
func (w *waitWatcher) explain(ctx context.Context, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil || ctx.Err() == nil || len(w.last) == 0 {
		return err
	}
	return &WaitError{For: w.last, Err: err}
}
