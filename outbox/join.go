package outbox

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// Join returns a Tx that publishes in a transaction that the caller has begun on the database of Config.Pool. Commit the
// returned Tx instead of inner. Unlike with Within, each Publish inserts its rows at once and holds the streams' locks until
// the end.
//
// Events are sent by the relay if their rows are found committed after Commit has returned nil. So inner may be a
// savepoint, and its owner may roll back to savepoints of his own. If Commit only released a savepoint, or if inner is
// committed instead of the returned Tx, the sweep sends the events some seconds after the transaction has committed, and
// functions of AfterCommit are not called.
//
// If inner is a rocketflow.Tx of this outbox, or a savepoint of one, Join returns it as it is: its events and functions
// belong to that transaction.
func (o *Outbox) Join(inner pgx.Tx) rocketflow.Tx {
	if t, ok := inner.(*tx); ok && t.shared.outbox == o {
		return t
	}
	conn := inner.Conn()
	if s := o.exposed.get(conn); s != nil {
		return s.wrap(inner)
	}
	s, t := o.newTransaction(inner, nil)
	s.conn, s.eager, s.unproven = conn, true, true
	return t
}

// wrap returns a tx of inner, which a caller has wrapped around a tx of the same transaction.
func (s *transaction) wrap(inner pgx.Tx) *tx {
	if t, ok := inner.(*tx); ok && t.shared == s {
		return t
	}
	l := &level{}
	s.wrappers = append(s.wrappers, l)
	return &tx{Tx: inner, shared: s, level: l, wrapper: true}
}

// exposedConns maps connections that the application has got by Tx.Conn to their open transactions. With it Join recognizes
// a transaction of this outbox in a wrapper of the application.
type exposedConns struct {
	mu sync.Mutex
	of map[*pgx.Conn]*transaction
}

func (h *exposedConns) put(conn *pgx.Conn, s *transaction) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[*pgx.Conn]*transaction{}
	}
	h.of[conn] = s
}

func (h *exposedConns) get(conn *pgx.Conn) *transaction {
	if conn == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[conn]
}

func (h *exposedConns) remove(conn *pgx.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, conn)
}

// commitUnproven commits a transaction whose base.Commit may return nil without a commit: it may release a savepoint,
// prepare a transaction, or do whatever else the pgx.Tx of a caller does.
func (s *transaction) commitUnproven(ctx context.Context) error {
	p := &s.publication
	if len(s.callbacks) > 0 || s.lazy != nil {
		if err := s.dropRolledBack(ctx); err != nil {
			if s.lazy != nil {
				return s.rollback(ctx, s.withCause(err))
			}
			s.callbacks, s.logged = nil, cmp.Or(s.logged, err)
			s.outbox.log.Warn("functions of AfterCommit are not called: it can't be looked up which parts of a joined transaction were rolled back", keyError, err)
		}
	}
	if err := s.base.Commit(ctx); err != nil {
		if lazytx.NotCommitted(err) {
			p.abandon(ctx)
		} else {
			p.unknown()
		}
		return s.withCause(commitError(err))
	}
	callbacks := s.callbacks
	s.callbacks = nil
	if s.stillOpen() {
		p.unknown()
		if len(callbacks) > 0 {
			s.outbox.log.Debug("functions of AfterCommit are not called: Commit released a savepoint", keyFunctions, len(callbacks))
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.outbox.config.EndTimeout)
	defer cancel()
	p.finishVisible(ctx)
	if len(callbacks) > 0 && s.wasCommitted(ctx) {
		s.callbacks = callbacks
	}
	return nil
}

// stillOpen reports whether the joined transaction is known to be open, after Commit.
func (s *transaction) stillOpen() bool {
	if _, pooled := s.base.(*pgxpool.Tx); pooled || s.lazy != nil || s.conn == nil || !isPgx(s.base) {
		return false // and the connection may belong to another transaction already
	}
	return s.conn.PgConn().TxStatus() != 'I'
}

// isPgx reports whether tx has a type of package pgx itself.
func isPgx(tx pgx.Tx) bool {
	t := reflect.TypeOf(tx)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.HasPrefix(t.PkgPath(), "github.com/jackc/pgx/v5")
}

// finishVisible ends a publication whose transaction may or may not be committed after Commit returned nil: it looks the rows
// up by another connection, and gives the events that are committed to the relay. The others are unknown.
func (p *publication) finishVisible(ctx context.Context) {
	o := p.outbox
	if len(p.events) == 0 {
		return
	}
	running := o.current()
	if running == nil {
		p.unknown()
		return
	}
	committed, err := o.committed(ctx, p.events)
	if err != nil {
		o.log.Warn("it can't be looked up which events of a joined transaction are committed; the sweep sends those that are", keyEvents, len(p.events), keyError, err)
	}
	those, others := split(p.events, func(e rocketflow.Event) bool { return committed[e.ID] })
	o.leaveToSweep(others)
	if len(those) > 0 {
		o.listener.Committed(those)
		running.relay.offer(those...)
	}
}

// wasCommitted looks up by another connection whether the transaction is committed. It goes by the transaction's id, which
// is good enough for callbacks, as these are hints. For events only their rows are proof.
func (s *transaction) wasCommitted(ctx context.Context) (committed bool) {
	if s.xid == "" { // it has written nothing, so there was nothing that could fail to commit
		return s.lazy != nil || isPgx(s.base)
	}
	if err := s.outbox.db().QueryRow(ctx, s.outbox.queries.Get("WasCommitted"), s.xid).Scan(&committed); err != nil {
		s.outbox.log.Warn("functions of AfterCommit are not called: it can't be looked up whether a joined transaction is committed", keyError, err)
		return false
	}
	return committed
}

// maxVisible bounds a query for the events of joined transactions.
const maxVisible = 2048

// committed returns the ids of the events whose rows another connection can see.
func (o *Outbox) committed(ctx context.Context, events []rocketflow.Event) (map[uuid.UUID]bool, error) {
	ids := make(map[uuid.UUID]bool, len(events))
	for chunk := range slices.Chunk(events, maxVisible) {
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
