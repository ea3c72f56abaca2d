package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// ledger is what a continuous reconciliation remembers between two passes.
type ledger struct {
	from    time.Time
	cursors map[string]cursor // by schema
	open    map[string]map[uuid.UUID]map[consumerKey]bool
	// Sums of what is settled.
	published map[string]int
	settled   map[consumerKey]settled
	unclaimed map[UnclaimedType]int
}

// cursor is the last event that was read, by transaction.
type cursor struct {
	transaction string
	id          uuid.UUID
}

type settled struct{ handled, skipped int }

// maxOpen bounds the open events that a ledger remembers. While there are more, no new events are read.
const maxOpen = 100_000

func newLedger() *ledger {
	return &ledger{
		cursors: map[string]cursor{}, open: map[string]map[uuid.UUID]map[consumerKey]bool{}, published: map[string]int{},
		settled: map[consumerKey]settled{}, unclaimed: map[UnclaimedType]int{},
	}
}

// reconcileNew compares the events that are new to the ledger, and those that were open.
func (y *System) reconcileNew(ctx context.Context, c ReconcileConfig, l *ledger) (*Reconciliation, error) {
	r, err := y.newReconciling(ctx, c)
	if err != nil {
		return nil, err
	}
	if l.from.IsZero() {
		l.from = r.from
	}
	for i := range r.members {
		if err := r.readNew(ctx, i, l); err != nil {
			return nil, fmt.Errorf("schema %s: %w", r.members[i].config.Schema, err)
		}
	}
	if err := r.conclude(ctx); err != nil {
		return nil, err
	}
	l.note(r)
	x := r.result()
	x.From = l.from
	return x, nil
}

// readNew compares the open events of a schema, and then its new ones.
func (r *reconciling) readNew(ctx context.Context, publisher int, l *ledger) error {
	schema := r.members[publisher].config.Schema
	ids := make([]string, 0, len(l.open[schema]))
	for id := range l.open[schema] {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	r.only = l.open[schema]
	for chunk := range slices.Chunk(ids, reconcilePage) {
		page, err := r.page(ctx, publisher, "PublishedOf", chunk)
		if err == nil {
			err = r.compare(ctx, publisher, page)
		}
		if err != nil {
			return err
		}
	}
	r.only = nil
	at, begun := l.cursors[schema]
	if !begun {
		var err error
		if at.transaction, err = r.beginning(ctx, publisher); err != nil {
			return err
		}
		if err := r.readWindow(ctx, publisher, at.transaction); err != nil {
			return err
		}
		l.cursors[schema] = at
	}
	for {
		if len(r.open) > maxOpen {
			r.partial = true
			return nil
		}
		page, err := r.page(ctx, publisher, "PublishedByTransaction", at.transaction, at.id.String(), reconcilePage)
		if err != nil {
			return err
		}
		young := slices.IndexFunc(page, func(e publishedEvent) bool { return e.recordedAt.After(r.to) })
		all := len(page) < reconcilePage
		if young >= 0 {
			page, all = page[:young], true
		}
		if err := r.compare(ctx, publisher, page); err != nil {
			return err
		}
		if len(page) > 0 {
			last := page[len(page)-1]
			at = cursor{last.transaction, last.id}
			l.cursors[schema] = at
		}
		if all {
			return r.members[publisher].read(ctx, func(s snapshot) error {
				var heldBack bool
				err := s.tx.QueryRow(ctx, s.sql.Get("HeldBack"), r.to).Scan(&heldBack)
				r.partial = r.partial || heldBack
				return err
			})
		}
	}
}

// beginning returns the transaction with which reading by transaction begins: no older one is open, or has published an event that is
// within the grace. The events of older ones are read by id.
func (r *reconciling) beginning(ctx context.Context, publisher int) (transaction string, err error) {
	err = r.members[publisher].read(ctx, func(s snapshot) error {
		return s.tx.QueryRow(ctx, s.sql.Get("Beginning"), idAt(r.to.Add(-idMargin)).String(), r.to).Scan(&transaction)
	})
	return transaction, err
}

// note adds what a pass has found, and completes the totals of the pass.
func (l *ledger) note(r *reconciling) {
	for i := range r.publishers {
		p := &r.publishers[i]
		l.published[p.Schema] += p.Published
		p.Published = l.published[p.Schema]
	}
	for _, s := range r.subscribers {
		sum := l.settled[s.key]
		sum.handled += s.total.Handled
		sum.skipped += s.total.Skipped
		l.settled[s.key] = sum
		s.total.Handled, s.total.Skipped = sum.handled, sum.skipped
	}
	for key, n := range r.unclaimed {
		l.unclaimed[key] += n
	}
	r.unclaimed = l.unclaimed
	l.open = map[string]map[uuid.UUID]map[consumerKey]bool{}
	for _, o := range r.open {
		if o.dropped {
			continue
		}
		schema := r.members[o.publisher].config.Schema
		if l.open[schema] == nil {
			l.open[schema] = map[uuid.UUID]map[consumerKey]bool{}
		}
		if l.open[schema][o.id] == nil {
			l.open[schema][o.id] = map[consumerKey]bool{}
		}
		l.open[schema][o.id][o.by.key] = true
	}
}

// Watch is a reconciliation that goes on: each pass compares the events that are new and those that were open. Use it from one
// goroutine; a Reconciler does so in the background of a service.
type Watch struct {
	system *System
	config ReconcileConfig
	ledger *ledger
}

// Watch returns a Watch that begins with the events of the last Since.
func (y *System) Watch(c ReconcileConfig) *Watch { return &Watch{system: y, config: c.withDefaults()} }

// Next makes a pass, and returns the result of all passes together. After an error, the next pass begins anew.
func (w *Watch) Next(ctx context.Context) (*Reconciliation, error) {
	if err := w.config.validate(); err != nil {
		return nil, err
	}
	if w.ledger == nil {
		w.ledger = newLedger()
	}
	x, err := w.system.reconcileNew(ctx, w.config, w.ledger)
	if err != nil {
		w.ledger = nil // it may have counted a part of the pass
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	return x, nil
}
