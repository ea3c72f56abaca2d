package rocketflowtest

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var queriesSQL string

const (
	// pollInterval lies between two looks at what is left, while something moves; then it grows.
	pollInterval = 2 * time.Millisecond
	longestPoll  = 20 * time.Millisecond
	// quietLooks is how many looks in a row must find nothing left, and nothing changed: what moves on from one place to
	// the next may be seen in neither for a moment.
	quietLooks = 2
)

// Settle waits until nothing is left to do at the present instant: every event that was recorded has reached the broker,
// each consumer is done with each event of its topics, and no timeout and no retry is due. What the services do of their
// own accord, outside rocketflow, it can't see.
func (w *Env) Settle() {
	w.t.Helper()
	if left := w.TrySettle(w.config.SettleTimeout); left != nil {
		w.t.Fatalf("not at rest after %v: %s", w.config.SettleTimeout, strings.Join(left, "; "))
	}
}

// TrySettle is Settle with a patience of its own, in the machine's time. It returns what is left, or nil: for tests that
// do harm, and then help themselves, say by a Jump to the next check of half messages.
func (w *Env) TrySettle(patience time.Duration) (left []string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	moves, pause := int64(-1), pollInterval
	for quiet := 0; quiet < quietLooks; {
		left = w.progress.left(w.broker)
		if len(left) == 0 { // else it isn't worth asking Postgres
			found, err := w.owed(ctx)
			if err != nil && ctx.Err() == nil {
				w.t.Fatalf("settle: %v", err)
			}
			left = found
		}
		if now := w.progress.moves(); now != moves {
			moves, quiet, pause = now, 0, pollInterval
		} else if len(left) > 0 {
			quiet, pause = 0, min(2*pause, longestPoll)
			if err := w.settleCopies(ctx); err != nil && ctx.Err() == nil {
				w.t.Fatalf("settle: %v", err)
			}
		} else {
			quiet++
		}
		select {
		case <-ctx.Done():
			return w.whatIsLeft()
		case <-time.After(pause):
		}
	}
	return nil
}

// whatIsLeft says all that could be done now and isn't.
func (w *Env) whatIsLeft() []string {
	ctx, cancel := w.timeout()
	defer cancel()
	left := w.progress.left(w.broker)
	owed, err := w.owed(ctx)
	if err != nil {
		left = append(left, err.Error())
	}
	if left = append(left, owed...); len(left) == 0 {
		left = []string{"events still come"}
	}
	return left
}

// settleCopies has the book know which of the events that consumers got are parked already.
func (w *Env) settleCopies(ctx context.Context) error {
	ids := w.progress.received()
	if len(ids) == 0 {
		return nil
	}
	for _, s := range w.running() {
		rows, err := w.pool.Query(ctx, queries.Parse(queriesSQL, s.Schema).Get("ParkedOf"), ids)
		if err != nil {
			return fmt.Errorf("look at what %s has parked: %w", s.Name, err)
		}
		var consumer string
		var id uuid.UUID
		if _, err := pgx.ForEachRow(rows, []any{&consumer, &id}, func() error {
			w.progress.parked(s.groupPrefix+consumer, id)
			return nil
		}); err != nil {
			return fmt.Errorf("look at what %s has parked: %w", s.Name, err)
		}
	}
	return nil
}

// owed says what of it Postgres knows.
func (w *Env) owed(ctx context.Context) (left []string, err error) {
	var batch pgx.Batch // one round trip
	for _, s := range w.running() {
		batch.Queue(queries.Parse(queriesSQL, s.Schema).Get("Left")).QueryRow(func(row pgx.Row) error {
			var owed, due, attempts, waiting int
			var timeouts string
			if err := row.Scan(&owed, &due, &attempts, &timeouts, &waiting); err != nil {
				return fmt.Errorf("look at what %s has left: %w", s.Name, err)
			}
			if owed > 0 {
				left = append(left, fmt.Sprintf("%s: %d events recorded that the broker hasn't confirmed", s.Name, owed))
			}
			if due > 0 {
				left = append(left, fmt.Sprintf("%s: %d timeouts due that haven't fired (%s)", s.Name, due, timeouts))
			}
			if attempts > 0 {
				left = append(left, fmt.Sprintf("%s: %d parked events due", s.Name, attempts))
			}
			if waiting > 0 {
				left = append(left, fmt.Sprintf("%s: %d waiting events of sagas due", s.Name, waiting))
			}
			return nil
		})
	}
	return left, w.pool.SendBatch(ctx, &batch).Close()
}

// FastForward moves the clock ahead by d, from one instant at which something falls due to the next, and has all come to
// rest at each and at the end: a timeout of ten minutes whose handler arms another of ten minutes is followed by that.
// Instants less than a tenth of a second apart are taken together.
func (w *Env) FastForward(d time.Duration) {
	w.t.Helper()
	const together = 100 * time.Millisecond
	w.Settle()
	for {
		step := d
		if next, any := w.next(); any {
			step = min(d, next+together)
		}
		w.Advance(step)
		w.Settle()
		if d -= step; d <= 0 {
			return
		}
	}
}

// Advance moves the clock ahead by d at once, whatever is going on, and doesn't wait: as a machine that was suspended.
func (w *Env) Advance(d time.Duration) {
	w.t.Helper()
	ctx, cancel := w.timeout()
	defer cancel()
	// Postgres first: it decides what is due when the others have a look.
	var schemas []string
	day := w.clock.Now().Add(d).UTC().Truncate(24 * time.Hour)
	for _, s := range w.running() {
		if !s.ready.Equal(day) {
			schemas = append(schemas, s.Schema)
			s.ready = day
		}
	}
	if err := pgclock.Set(ctx, w.pool, w.schema, w.clock.Offset()+d, schemas...); err != nil {
		w.t.Fatalf("%v", err)
	}
	w.clock.Advance(d)
	w.broker.RunDue()
}

// next is how far ahead the next instant is at which something falls due.
func (w *Env) next() (nearest time.Duration, any bool) {
	w.t.Helper()
	ctx, cancel := w.timeout()
	defer cancel()
	for _, s := range w.running() {
		var seconds *float64
		if err := w.pool.QueryRow(ctx, queries.Parse(queriesSQL, s.Schema).Get("Next")).Scan(&seconds); err != nil {
			w.t.Fatalf("look for what %s has next: %v", s.Name, err)
		}
		if seconds == nil {
			continue
		}
		if d := max(0, time.Duration(*seconds*float64(time.Second))); !any || d < nearest {
			nearest, any = d, true
		}
	}
	return nearest, any
}

func (w *Env) running() []*Service {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*Service
	for _, s := range w.services {
		if s.app != nil {
			all = append(all, s)
		}
	}
	return all
}
