package outbox

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
)

// Join makes a transaction that the caller has begun publish, on the database of Config.Pool. Commit the returned Tx
// instead of inner. Unlike with Within each Publish writes its rows at once, and holds the streams' locks until the end.
//
// The rows decide: what is sent, by the relay, are events whose rows are found committed after Commit has returned nil. So
// inner may be a savepoint, and the owner may roll back to savepoints of his own. Where Commit only released a savepoint,
// and where inner is committed in place of the returned Tx, its events go out by the sweep when the transaction has
// committed, some seconds later, and functions of AfterCommit are not called.
//
// If inner is a rocketflow.Tx of this outbox, or a savepoint of one, it is returned as it is: its events and functions
// belong to that transaction, and are sent and called when that has committed.
func (o *Outbox) Join(inner pgx.Tx) rocketflow.Tx {
	if t, ok := inner.(*tx); ok && t.shared.outbox == o {
		return t
	}
	conn := inner.Conn()
	if s := o.handedOut.get(conn); s != nil {
		return s.view(inner)
	}
	s, t := o.newTransaction(inner)
	s.conn, s.eager, s.opaque = conn, true, true
	return t
}

// view makes a tx of what a caller has wrapped around one of the same transaction.
func (s *transaction) view(inner pgx.Tx) *tx {
	if t, ok := inner.(*tx); ok && t.shared == s {
		return t
	}
	l := &level{}
	s.views = append(s.views, l)
	return &tx{Tx: inner, shared: s, level: l, wrapper: true}
}

// handedOut holds the transactions whose connection the application has asked for, so that Join knows them again where
// the application has wrapped them.
type handedOut struct {
	mu sync.Mutex
	of map[*pgx.Conn]*transaction
}

func (h *handedOut) put(conn *pgx.Conn, s *transaction) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[*pgx.Conn]*transaction{}
	}
	h.of[conn] = s
}

func (h *handedOut) get(conn *pgx.Conn) *transaction {
	if conn == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[conn]
}

func (h *handedOut) remove(conn *pgx.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, conn)
}

// commitOpaque commits where nil proves nothing: a savepoint may have been released, a transaction prepared, or whatever
// the Tx of a caller does.
func (s *transaction) commitOpaque(ctx context.Context) error {
	if len(s.pending.after) > 0 || s.own != nil {
		if err := s.settle(ctx); err != nil {
			if s.own != nil {
				return fmt.Errorf("%w (%w)", err, s.rollback(ctx))
			}
			s.pending.after = nil
			s.outbox.log.Warn("functions of AfterCommit are not called: what is left of a joined transaction is not known", "error", err)
		}
	}
	if err := s.base.Commit(ctx); err != nil {
		if len(s.pending.events) > 0 {
			s.outbox.listener.RolledBack(s.pending.events, !refused(err))
		}
		return commitError(err)
	}
	after := s.pending.after
	s.pending.after = nil
	if s.open() {
		s.outbox.leaveToSweep(s.pending.events)
		if len(after) > 0 {
			s.outbox.log.Debug("functions of AfterCommit are not called: Commit released a savepoint", "functions", len(after))
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.outbox.config.EndTimeout)
	defer cancel()
	s.outbox.announce(ctx, s.pending.events)
	if len(after) > 0 && s.wasCommitted(ctx) {
		s.pending.after = after
	}
	return nil
}

// open tells that the joined transaction is known to be open, after Commit.
func (s *transaction) open() bool {
	if _, pooled := s.base.(*pgxpool.Tx); pooled || s.own != nil || s.conn == nil || !isPgx(s.base) {
		return false // and the connection may be another's already
	}
	return s.conn.PgConn().TxStatus() != 'I'
}

// isPgx tells whether tx is of package pgx itself.
func isPgx(tx pgx.Tx) bool {
	t := reflect.TypeOf(tx)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.HasPrefix(t.PkgPath(), "github.com/jackc/pgx/v5")
}

// announce has those events sent whose rows are found committed. The others are the sweep's, should they ever be.
func (o *Outbox) announce(ctx context.Context, events []rocketflow.Event) {
	if len(events) == 0 {
		return
	}
	r := o.current()
	if r == nil {
		o.leaveToSweep(events)
		return
	}
	committed, err := o.committed(ctx, events)
	if err != nil {
		o.log.Warn("it is not known which events of a joined transaction are committed; the sweep sends those that are", "events", len(events), "error", err)
	}
	those, others := split(events, func(e rocketflow.Event) bool { return committed[e.ID] })
	o.leaveToSweep(others)
	if len(those) > 0 {
		o.listener.Committed(those)
		r.relay.offer(those...)
	}
}

// leaveToSweep reports events of which nobody knows whether they are committed, or will be.
func (o *Outbox) leaveToSweep(events []rocketflow.Event) {
	if len(events) > 0 {
		o.listener.RolledBack(events, true)
	}
}

// wasCommitted tells whether the transaction is committed, from outside of it. The functions that hang on it are hints, so
// its id is good enough; for events only their rows are.
func (s *transaction) wasCommitted(ctx context.Context) (committed bool) {
	if s.xid == "" { // it has written nothing, so to commit it was no risk
		return s.own != nil || isPgx(s.base)
	}
	scan := func(rows pgx.Rows) (err error) {
		committed, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
		return err
	}
	if err := s.outbox.query(ctx, scan, "WasCommitted", s.xid); err != nil {
		s.outbox.log.Warn("functions of AfterCommit are not called: it is not known whether a joined transaction is committed", "error", err)
		return false
	}
	return committed
}

// maxAnnounced bounds a query for the events of joined transactions.
const maxAnnounced = 2048

// committed returns the ids of those events whose rows are visible from outside.
func (o *Outbox) committed(ctx context.Context, events []rocketflow.Event) (map[uuid.UUID]bool, error) {
	ids := make(map[uuid.UUID]bool, len(events))
	for chunk := range slices.Chunk(events, maxAnnounced) {
		keys := make([]uuid.UUID, len(chunk))
		for i, e := range chunk {
			keys[i] = e.ID
		}
		found, err := o.lookUp(ctx, keys)
		if err != nil {
			return ids, err
		}
		for i, f := range found {
			if f.recorded && !f.replica {
				ids[keys[i]] = true
			}
		}
	}
	return ids, nil
}
