package outbox

import (
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// spilled is an event that the relay has no room for: its row is read when there is.
type spilled struct {
	id   uuid.UUID
	size int
}

const (
	// maxSpill bounds the memory, to some MiB; what comes beyond it is found by the sweep.
	maxSpill = 100_000
	// spillPage is how many rows are read back at once; their bodies are bounded by sweepBytes, too.
	spillPage = 512
)

// spillOver is called with mu held.
func (r *relay) spillOver(events []rocketflow.Event) {
	if r.quit || len(events) == 0 {
		return
	}
	for _, e := range events[:min(len(events), max(0, maxSpill-len(r.spill)))] {
		r.spill = append(r.spill, spilled{e.ID, len(e.Body) + eventOverhead})
	}
	r.spilled.Signal()
}

func (r *relay) dropSpill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spill = nil
	r.dropped++
}

// readBack puts what didn't fit into the lanes, in order, until the relay ends.
func (r *relay) readBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.quit {
		if len(r.spill) == 0 {
			r.spilled.Wait()
			continue
		}
		if r.held >= (r.outbox.config.RelayBuffer+1)/2 || r.bytes >= (r.outbox.config.RelayBytes+1)/2 {
			r.room.Wait()
			continue
		}
		n, size := 0, 0
		for n < min(len(r.spill), spillPage) && (n == 0 || size+r.spill[n].size <= sweepBytes) {
			size += r.spill[n].size
			n++
		}
		ids := make([]string, n)
		for i, s := range r.spill[:n] {
			ids[i] = s.id.String()
		}
		dropped := r.dropped
		r.mu.Unlock()
		events, err := r.outbox.load(r.ctx, r.database, ids)
		r.mu.Lock()
		if err != nil {
			if !r.quit {
				r.outbox.log.Warn("events that had no room in memory can't be read back; the sweep finds them", "events", len(r.spill), "error", err)
			}
			r.spill = nil
			continue
		}
		// Those that are here already go out, should the rest be dropped meanwhile.
		for _, e := range events {
			if !r.putWhenRoom(relayed{event: e}) {
				return
			}
		}
		// Only now: what is offered meanwhile goes behind it.
		if r.dropped != dropped {
			continue
		}
		if r.spill = r.spill[n:]; len(r.spill) == 0 {
			r.spill = nil
		}
	}
}
