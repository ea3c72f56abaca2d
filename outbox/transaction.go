package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/pgerror"
)

// transaction is what a tx and the txs of its savepoints share: the events to publish and the functions to call if it
// commits.
//
// Events stay in memory until Commit, and savepoints of tx.Begin are followed in memory. Where something else may roll back
// a part of the transaction, memory can't say which events are affected: then the transaction records eagerly. Publish
// inserts the rows at once and AfterCommit leaves markers, and both are rolled back with the statements beside them; the rows
// and markers that are left right before the commit decide.
type transaction struct {
	outbox *Outbox
	base   pgx.Tx
	lazy   *lazytx.Tx // base, if the outbox has begun it; nil if it is joined
	conn   *pgx.Conn  // of base, if it is joined
	eager  bool       // rows and markers are written at once
	// unproven: nil from base.Commit doesn't prove that Postgres committed.
	unproven bool

	publication publication
	callbacks   []callback
	marked      int // callbacks[:marked] have left their marker

	levels    []*level // the open ones, from the transaction itself to the innermost savepoint
	wrappers  []*level // of callers' wrappers, see wrap; they end with the transaction
	begun     int64    // savepoints, as pgx counts them
	xid       string   // set by dropRolledBack if the transaction has written anything
	exposed   *pgx.Conn
	eagerDue  bool // becomeEager must be called: the connection was handed out while a result was being read
	committed bool
	err       error // of Commit
	// rollbackOnly says why the transaction must not commit.
	rollbackOnly error
	// logged is the first error of a statement of the outbox that was only logged. Postgres may refuse to commit because of it.
	logged error
	// lateRows are the events whose rows were inserted in a savepoint that began after they were published.
	lateRows map[uuid.UUID]bool
}

// callback is a function of AfterCommit.
type callback struct {
	fn     func()
	marker string // empty if memory alone decides whether fn is called
}

// level is the transaction itself or a savepoint, with how much there was when it began.
type level struct {
	number                              int64 // of pgx's savepoint sp_<number>; 0: the transaction
	ended                               bool
	events, recorded, callbacks, marked int
}

func (o *Outbox) newTransaction(base pgx.Tx, lazy *lazytx.Tx) (*transaction, *tx) {
	root := &level{}
	s := &transaction{
		outbox: o, base: base, lazy: lazy, levels: []*level{root},
		publication: publication{outbox: o, rows: pgxRows{base}, base: base, lazy: lazy},
	}
	if lazy != nil {
		s.publication.watch.begin(&o.hot)
	}
	return s, &tx{Tx: base, shared: s, level: root}
}

// gone reports whether the transaction has ended without Commit or Rollback, by a statement or with the connection: a
// statement would now be committed by itself. It must not be called after Commit or Rollback.
func (s *transaction) gone() bool {
	if s.lazy != nil {
		return s.lazy.Gone()
	}
	return s.conn != nil && s.conn.PgConn().TxStatus() == 'I'
}

// push begins a level.
func (s *transaction) push(number int64) *level {
	p := &s.publication
	l := &level{number: number, events: len(p.events), recorded: p.recorded, callbacks: len(s.callbacks), marked: s.marked}
	s.levels = append(s.levels, l)
	return l
}

// end ends a level and those that were begun in it.
func (s *transaction) end(l *level) {
	i := slices.Index(s.levels, l)
	if i < 0 {
		l.ended = true
		return
	}
	for _, inner := range s.levels[i:] {
		inner.ended = true
	}
	s.levels = s.levels[:i]
	if i == 0 {
		for _, w := range s.wrappers {
			w.ended = true
		}
	}
}

// undo drops the events and callbacks that came after a level began. Those that came before but were written since have lost
// their row or marker.
func (s *transaction) undo(l *level) {
	s.publication.truncate(l.events, l.recorded)
	if l.callbacks < len(s.callbacks) {
		s.callbacks = s.callbacks[:l.callbacks]
	}
	for i := l.marked; i < min(s.marked, len(s.callbacks)); i++ {
		s.callbacks[i].marker = ""
	}
	s.marked = min(s.marked, l.marked)
}

// beforeStatement must be called before each statement of the application. control reports that the statement may begin or
// end a transaction or a savepoint; then afterControl must follow it.
func (s *transaction) beforeStatement(ctx context.Context, sql string) (control bool, err error) {
	if s.lazy == nil {
		return false, nil
	}
	if control = isTransactionControl(sql); control || s.eagerDue {
		err = s.becomeEager(ctx)
	}
	return control, err
}

// afterControl follows a statement that rolls back to savepoints of pgx.
func (s *transaction) afterControl(sql string) {
	for _, n := range rolledBackTo(sql) {
		for i, l := range s.levels {
			if l.number != n || i == 0 {
				continue
			}
			s.undo(l)
			if i+1 < len(s.levels) {
				s.end(s.levels[i+1])
			}
			break
		}
	}
}

// becomeEager makes the transaction record eagerly. It must be called before something whose rollback can't be followed in
// memory.
func (s *transaction) becomeEager(ctx context.Context) error {
	if s.eager {
		return nil
	}
	p := &s.publication
	if err := p.record(ctx); err != nil {
		return err
	}
	if s.marked < len(s.callbacks) {
		marker, err := s.leaveMarker(ctx)
		if err != nil {
			return err
		}
		for i := s.marked; i < len(s.callbacks); i++ {
			s.callbacks[i].marker = marker
		}
		s.marked = len(s.callbacks)
	}
	for _, l := range s.levels[1:] {
		for _, e := range p.events[min(l.recorded, l.events):l.events] {
			if s.lateRows == nil {
				s.lateRows = map[uuid.UUID]bool{}
			}
			s.lateRows[e.ID] = true
		}
	}
	s.eager, s.eagerDue = true, false
	return nil
}

// leaveMarker appends a marker to a setting of the transaction, which a rollback to a savepoint undoes with everything else.
func (s *transaction) leaveMarker(ctx context.Context) (string, error) {
	marker := uuid.NewString()
	if _, err := s.base.Exec(ctx, s.outbox.queries.Get("LeaveMarker"), marker); err != nil {
		return "", fmt.Errorf("register a function for after the commit: %w", err)
	}
	return marker, nil
}

// errRowsRolledBack is returned where a commit would lose an event.
var errRowsRolledBack = errors.New("a statement rolled back to a savepoint of tx.Begin and with it rows of events that were published before: use Rollback of the savepoint")

// dropRolledBack drops the events and callbacks whose rows or markers were rolled back. It must come right before the
// commit.
func (s *transaction) dropRolledBack(ctx context.Context) error {
	p := &s.publication
	if err := p.record(ctx); err != nil {
		return err
	}
	ids := make([]string, len(p.events))
	for i, e := range p.events {
		ids[i] = e.ID.String()
	}
	var markers string
	var xid *string
	var left []string
	if err := s.base.QueryRow(ctx, s.outbox.queries.Get("NotRolledBack"), ids).Scan(&markers, &xid, &left); err != nil {
		return fmt.Errorf("look up which events of the transaction were rolled back: %w", err)
	}
	if xid != nil {
		s.xid = *xid
	}
	if len(left) < len(ids) {
		has := setOf(left)
		var gone []rocketflow.Event
		p.events, gone = split(p.events, func(e rocketflow.Event) bool { return has[e.ID.String()] })
		p.recorded = len(p.events)
		if slices.ContainsFunc(gone, func(e rocketflow.Event) bool { return s.lateRows[e.ID] }) {
			return errRowsRolledBack
		}
		s.outbox.listener.RolledBack(gone, false)
	}
	has := setOf(strings.Fields(markers))
	s.callbacks = slices.DeleteFunc(s.callbacks, func(c callback) bool { return c.marker != "" && !has[c.marker] })
	return nil
}

func setOf(all []string) map[string]bool {
	set := make(map[string]bool, len(all))
	for _, s := range all {
		set[s] = true
	}
	return set
}

// split divides events by whether they are ok.
func split(events []rocketflow.Event, ok func(rocketflow.Event) bool) (those, others []rocketflow.Event) {
	for _, e := range events {
		if ok(e) {
			those = append(those, e)
		} else {
			others = append(others, e)
		}
	}
	return those, others
}

// commit ends the transaction, and its publication.
func (s *transaction) commit(ctx context.Context) error {
	defer s.publication.leaveStreams()
	s.hideConn()
	switch {
	case s.rollbackOnly != nil:
		return s.rollback(ctx, s.rollbackOnly)
	case s.unproven:
		return s.commitUnproven(ctx)
	case s.eager || s.eagerDue:
		if err := s.dropRolledBack(ctx); err != nil {
			return s.rollback(ctx, s.withCause(err))
		}
	}
	if len(s.publication.events) == 0 {
		return s.withCause(commitError(s.base.Commit(ctx)))
	}
	return s.withCause(s.publication.commit(ctx))
}

// withCause adds s.logged to an error that only says that an earlier statement failed. Without it the caller could not see
// that the transaction may succeed when it runs again. The cause comes first, so that errors.As finds its *pgconn.PgError.
func (s *transaction) withCause(err error) error {
	if s.logged != nil && (errors.Is(err, pgx.ErrTxCommitRollback) || pgerror.IsOfFailedTransaction(err)) {
		return fmt.Errorf("%w: %w", s.logged, err)
	}
	return err
}

// rollback ends a transaction that will not commit because of cause, which it returns; nil: at the caller's request.
func (s *transaction) rollback(ctx context.Context, cause error) error {
	s.hideConn()
	err := s.publication.rollback(ctx, cause)
	s.publication.events, s.publication.recorded, s.callbacks = nil, 0, nil
	return err
}

// hideConn makes Join no longer recognize the connection as this transaction's. It must be called before the end of the
// transaction, which gives the connection back to the pool.
func (s *transaction) hideConn() {
	if s.exposed != nil {
		s.outbox.exposed.remove(s.exposed)
		s.exposed = nil
	}
}

// runCallbacks calls the functions of AfterCommit, in a goroutine. If one of them ends it by runtime.Goexit, the others run in
// another one.
func (s *transaction) runCallbacks() {
	for next := 0; next < len(s.callbacks); {
		s.outbox.panics.Report("AfterCommit", guard.Run(func() {
			for next < len(s.callbacks) {
				fn := s.callbacks[next].fn
				next++
				s.outbox.panics.Report("AfterCommit", guard.Call(fn))
			}
		}))
	}
}
