package handlers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
)

// unresponsive holds the handlers' calls that were abandoned and have not returned yet.
type unresponsive struct {
	mu    sync.Mutex
	next  int
	calls map[int]abandonedCall
}

type abandonedCall struct {
	event rocketflow.Event
	since time.Time
}

func (u *unresponsive) add(e rocketflow.Event, since time.Time) (id int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls == nil {
		u.calls = map[int]abandonedCall{}
	}
	u.next++
	u.calls[u.next] = abandonedCall{e, since}
	return u.next
}

func (u *unresponsive) remove(id int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.calls, id)
}

// err returns an error that lists the calls; nil if there are none.
func (u *unresponsive) err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(u.calls)) {
		c := u.calls[id]
		if len(errs) == 10 {
			errs = append(errs, fmt.Errorf("and %d more", len(u.calls)-10))
			break
		}
		errs = append(errs, fmt.Errorf("%w: event %s of type %s, subject %.64q, for %v",
			errUnresponsive, c.event.ID, c.event.Type, c.event.Subject, time.Since(c.since).Round(time.Second)))
	}
	return errors.Join(errs...)
}
