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
	cursors map[string]cursor // by member, as in the next
	open    map[string]map[uuid.UUID]map[consumerKey]MissingCause
	surplus map[consumerKey]surplus
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

// surplus counts the open events of a consumer that are not remembered one by one.
type surplus struct {
	events int
	since  time.Time // when the oldest was recorded
}

func newLedger() *ledger {
	return &ledger{
		cursors: map[string]cursor{}, open: map[string]map[uuid.UUID]map[consumerKey]MissingCause{}, surplus: map[consumerKey]surplus{}, published: map[string]int{},
		settled: map[consumerKey]settled{}, unclaimed: map[UnclaimedType]int{},
	}
}

// reconcileNew compares the events that are new to the ledger, and those that were open.
func (y *System) reconcileNew(ctx context.Context, c ReconcileConfig, l *ledger, keep func(context.Context) error) (*Reconciliation, error) {
	r, err := y.newReconciling(ctx, c, keep)
	if err != nil {
		return nil, err
	}
	r.asking = 20 * time.Second // the next pass goes on
	if err := r.askAllPositions(ctx); err != nil {
		return nil, err
	}
	if l.from.IsZero() {
		l.from = r.from
	}
	r.from = l.from
	for _, s := range r.subscribers {
		s.surplus, s.surplusSince = l.surplus[s.key].events, l.surplus[s.key].since
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
	if from, again := l.again(r); again {
		*l = *newLedger()
		l.from = from
	}
	return x, nil
}

// again reports whether the ledger has to begin anew, and from when: a consumer has handled so much that what was only counted can be
// compared.
func (l *ledger) again(r *reconciling) (from time.Time, again bool) {
	for _, s := range r.subscribers {
		if s.surplus > 0 {
			again = again || s.kept <= maxOpen/2 && s.lag() <= maxOpen/2
			from = earlier(from, s.surplusSince)
		}
	}
	for i := range r.open {
		from = earlier(from, r.open[i].recordedAt)
	}
	return from, again
}

// earlier returns the earlier of two times; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// readNew compares the open events of a schema, and then its new ones.
func (r *reconciling) readNew(ctx context.Context, publisher int, l *ledger) error {
	member := r.members[publisher].key
	ids := make([]string, 0, len(l.open[member]))
	for id := range l.open[member] {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	r.only = l.open[member]
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
	at, begun := l.cursors[member]
	if !begun {
		var err error
		if at.transaction, err = r.beginning(ctx, publisher); err != nil {
			return err
		}
		if err := r.readWindow(ctx, publisher, at.transaction); err != nil {
			return err
		}
		l.cursors[member] = at
	}
	for {
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
			l.cursors[member] = at
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
		p, member := &r.publishers[i], r.members[i].key
		l.published[member] += p.Published
		p.Published = l.published[member]
	}
	for _, s := range r.subscribers {
		sum := l.settled[s.key]
		sum.handled += s.total.Handled
		sum.skipped += s.total.Skipped
		l.settled[s.key] = sum
		s.total.Handled, s.total.Skipped = sum.handled, sum.skipped
		l.surplus[s.key] = surplus{s.surplus, s.surplusSince}
	}
	for key, n := range r.unclaimed {
		l.unclaimed[key] += n
	}
	r.unclaimed = l.unclaimed
	l.open = map[string]map[uuid.UUID]map[consumerKey]MissingCause{}
	for i := range r.open {
		o := &r.open[i]
		if o.dropped {
			continue
		}
		member := r.members[o.publisher].key
		if l.open[member] == nil {
			l.open[member] = map[uuid.UUID]map[consumerKey]MissingCause{}
		}
		if l.open[member][o.id] == nil {
			l.open[member][o.id] = map[consumerKey]MissingCause{}
		}
		cause := o.missing
		if cause.mendable() { // it ends with the event being sent again
			cause = ""
		}
		l.open[member][o.id][o.by.key] = cause
	}
}

// Watch is a reconciliation that goes on: each pass compares the events that are new and those that were open, of which there may be as
// many as in Reconcile. It asks the broker for 20 s of each pass; the next pass goes on with what is unknown after that. Use it from one
// goroutine; a Reconciler does so in the background of a service. If a consumer had more open events than are looked at, it begins anew with
// the oldest that is open or was only counted, as soon as the consumer has handled most of them.
type Watch struct {
	system *System
	config ReconcileConfig
	ledger *ledger
	keep   func(context.Context) error // see reconciling
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
	x, err := w.system.reconcileNew(ctx, w.config, w.ledger, w.keep)
	if err != nil {
		w.ledger = nil // it may have counted a part of the pass
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	return x, nil
}
