package migrations

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// Holder is a session of Postgres that a migration waits for: it migrates the schema, or has used one of its tables in a
// transaction that is open. What Postgres doesn't show to the migrating role is empty.
type Holder struct {
	PID         int32
	Role        string
	Application string // its application_name
	Address     string
	State       string        // as in pg_stat_activity
	Since       time.Duration // age of its transaction
}

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

// WaitError is the error of a migration that ended while it waited for others.
type WaitError struct {
	For []Holder // those last seen
	Err error    // that of the context, usually
}

func (e *WaitError) Error() string {
	names := make([]string, len(e.For))
	for i, h := range e.For {
		names[i] = h.String()
	}
	return fmt.Sprintf("waited for %s: %v", strings.Join(names, "; "), e.Err)
}

func (e *WaitError) Unwrap() error { return e.Err }

// lookInterval is the pause between two looks at whom a migration waits for.
const lookInterval = 500 * time.Millisecond

// watch finds out whom a migration waits for.
type watch struct {
	pool   *pgxpool.Pool
	sql    queries.Set
	notify func(Holder)
	told   map[int32]bool

	mu   sync.Mutex // guards what follows
	last []Holder   // whom it waited for at the last look
}

// look begins to watch a session, on a connection of its own, until the function that it returns is called. While the
// pool has none to spare nothing is seen.
func (w *watch) look(ctx context.Context, pid int32) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			rows, err := w.pool.Query(ctx, w.sql.Get("Blockers"), pid)
			if err != nil {
				continue // it is a hint
			}
			holders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holder, err error) {
				var seconds float64
				err = row.Scan(&h.PID, &h.Role, &h.Application, &h.Address, &h.State, &seconds)
				h.Since = time.Duration(seconds * float64(time.Second))
				return h, err
			})
			if err == nil {
				w.saw(holders)
			}
		}
	})
	return func() {
		cancel()
		looking.Wait()
	}
}

func (w *watch) saw(holders []Holder) {
	w.mu.Lock()
	w.last = holders
	w.mu.Unlock()
	for _, h := range holders {
		if w.told[h.PID] {
			continue
		}
		if w.told == nil {
			w.told = map[int32]bool{}
		}
		w.told[h.PID] = true
		w.notify(h)
	}
}

// explain adds to the error of a migration that ctx ended whom it waited for.
func (w *watch) explain(ctx context.Context, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil || ctx.Err() == nil || len(w.last) == 0 {
		return err
	}
	return &WaitError{For: w.last, Err: err}
}
