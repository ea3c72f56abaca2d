package rocketflowtest

import (
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// Clock returns the clock of the Env, for Go code of the services that reads the time.
func (e *Env) Clock() rocketflow.Clock { return e.clock }

// Now returns the time of the Env.
func (e *Env) Now() time.Time { return e.clock.Now() }

// FastForward moves the clock ahead by d, from one instant at which work falls due to the next, and settles at each of them
// and at the end. So a timeout of ten minutes whose handler arms another of ten minutes is followed by that one. Instants
// that are less than 100 ms apart are taken together. It fails the test where Settle does.
func (e *Env) FastForward(d time.Duration) {
	e.t.Helper()
	const resolution = 100 * time.Millisecond
	e.Settle()
	for {
		step := d
		if next, found := e.nextDue(); found {
			step = min(d, next+resolution)
		}
		e.Advance(step)
		e.Settle()
		if d -= step; d <= 0 {
			return
		}
	}
}

// Advance moves the clock ahead by d at once and doesn't wait for the work that this makes due. The services see what they
// would see on a machine that was suspended. Use FastForward unless that is the test.
func (e *Env) Advance(d time.Duration) {
	e.t.Helper()
	ctx, cancel := e.timeout()
	defer cancel()
	// PostgreSQL is first: it decides what is due once the others look.
	var schemas []string
	day := e.clock.Now().Add(d).UTC().Truncate(24 * time.Hour)
	for _, s := range e.running() {
		if !s.partitionsFor.Equal(day) {
			schemas = append(schemas, s.Schema)
			s.partitionsFor = day
		}
	}
	if err := pgclock.Set(ctx, e.pool, e.clockSchema, e.clock.Offset()+d, schemas...); err != nil {
		e.t.Fatalf("%v", err)
	}
	e.clock.Advance(d)
	e.broker.RunDue()
}

// nextDue returns how far ahead the next instant is at which work of a running service falls due.
func (e *Env) nextDue() (nearest time.Duration, found bool) {
	e.t.Helper()
	ctx, cancel := e.timeout()
	defer cancel()
	for _, s := range e.running() {
		var seconds *float64
		if err := e.pool.QueryRow(ctx, queries.Parse(queriesSQL, s.Schema).Get("NextDue")).Scan(&seconds); err != nil {
			e.t.Fatalf("read what %s has due next: %v", s.Name, err)
		}
		if seconds == nil {
			continue
		}
		if d := max(0, time.Duration(*seconds*float64(time.Second))); !found || d < nearest {
			nearest, found = d, true
		}
	}
	return nearest, found
}
