package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// transaction is what a tx and its savepoints share.
//
// Its events are in memory until Commit, and savepoints begun by tx.Begin are followed there. Where something else may roll
// back a part, memory can't know: then the transaction is eager. Its rows are written by Publish and its functions leave
// marks, both undone by whatever undoes the work beside them, and the rows and marks that are left before the commit decide.
type transaction struct {
	outbox *Outbox
	base   pgx.Tx
	own    *lazyTx   // what base is, unless joined
	conn   *pgx.Conn // base's, if joined
	eager  bool
	// opaque: nil from base.Commit doesn't prove that Postgres committed.
	opaque bool

	pending pending
	levels  []*level // the open ones, from the transaction itself to the innermost savepoint
	views   []*level // of wrappers; they end with the transaction
	begun   int64    // savepoints, as pgx counts them
	xid     string   // as settle found it
	streams []streamKey
	handed  *pgx.Conn // the connection that the application has asked for
	late    bool      // it did so while a result was being read: beEager is due
	left    bool      // it no longer counts as open
	// inner are events whose rows were written in a savepoint that began after them.
	inner map[uuid.UUID]bool

	doomed    error // why it mustn't commit
	committed bool
	err       error // of Commit
}

// pending is what a transaction will publish and do if it commits.
type pending struct {
	events    []rocketflow.Event
	unordered map[uuid.UUID]bool // events that take no place in a stream
	recorded  int                // events[:recorded] have their row already
	after     []afterCommit
	marked    int // after[:marked] have left their mark
}

// afterCommit is a function of AfterCommit. mark is empty if memory alone tells what became of it.
type afterCommit struct {
	fn   func()
	mark string
}

// level is the transaction itself or a savepoint, with how much was pending when it began.
type level struct {
	number                          int64 // of pgx's savepoint sp_<number>; 0: the transaction
	ended                           bool
	events, recorded, after, marked int
}

func (o *Outbox) newTransaction(base pgx.Tx) (*transaction, *tx) {
	root := &level{}
	s := &transaction{outbox: o, base: base, levels: []*level{root}}
	return s, &tx{Tx: base, shared: s, level: root}
}

// gone tells that Postgres has ended the transaction already, by a statement or with the connection: what is done now
// would be committed by itself. It must not be asked after the end.
func (s *transaction) gone() bool {
	if s.own != nil {
		return s.own.gone()
	}
	return s.conn != nil && s.conn.PgConn().TxStatus() == 'I'
}

func (s *transaction) add(events []rocketflow.Event, unordered []bool) {
	p := &s.pending
	for i, e := range events {
		if unordered[i] {
			if p.unordered == nil {
				p.unordered = map[uuid.UUID]bool{}
			}
			p.unordered[e.ID] = true
		} else if s.own != nil {
			s.enter(e)
		}
		p.events = append(p.events, e)
	}
}

// push begins a level.
func (s *transaction) push(number int64) *level {
	p := &s.pending
	l := &level{number: number, events: len(p.events), recorded: p.recorded, after: len(p.after), marked: p.marked}
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
		for _, view := range s.views {
			view.ended = true
		}
	}
}

// undo forgets what came after a level began. What came before but was written since has lost its row and its mark.
func (s *transaction) undo(l *level) {
	p := &s.pending
	if l.events < len(p.events) {
		p.events = p.events[:l.events]
	}
	if l.after < len(p.after) {
		p.after = p.after[:l.after]
	}
	p.recorded = min(p.recorded, l.recorded)
	for i := l.marked; i < min(p.marked, len(p.after)); i++ {
		p.after[i].mark = ""
	}
	p.marked = min(p.marked, l.marked)
}

// before prepares for a statement of the application. It must be called with each.
func (s *transaction) before(ctx context.Context, sql string) (controlled bool, err error) {
	if s.own == nil {
		return false, nil
	}
	if controlled = controls(sql); controlled || s.late {
		err = s.beEager(ctx)
	}
	return controlled, err
}

// after follows a statement that before took for one that controls the transaction.
func (s *transaction) after(sql string) {
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

// beEager makes the transaction eager, before something is done whose end memory can't follow.
func (s *transaction) beEager(ctx context.Context) error {
	if s.eager {
		return nil
	}
	if err := s.record(ctx); err != nil {
		return err
	}
	p := &s.pending
	if p.marked < len(p.after) {
		mark, err := s.mark(ctx)
		if err != nil {
			return err
		}
		for i := p.marked; i < len(p.after); i++ {
			p.after[i].mark = mark
		}
		p.marked = len(p.after)
	}
	for _, l := range s.levels[1:] {
		for _, e := range p.events[min(l.recorded, l.events):l.events] {
			if s.inner == nil {
				s.inner = map[uuid.UUID]bool{}
			}
			s.inner[e.ID] = true
		}
	}
	s.eager, s.late = true, false
	return nil
}

// mark leaves a mark in a setting of the transaction, which a savepoint takes back with all else.
func (s *transaction) mark(ctx context.Context) (string, error) {
	mark := uuid.NewString()
	if _, err := s.base.Exec(ctx, s.outbox.queries.Get("Mark"), mark); err != nil {
		return "", fmt.Errorf("register a function for after the commit: %w", err)
	}
	return mark, nil
}

// errUndone: to commit would lose an event.
var errUndone = errors.New("a statement rolled back to a savepoint of tx.Begin and took rows with it of events that were published before: use Rollback of the savepoint")

// settle leaves of what is pending what has its row or its mark still. It must come right before the commit.
func (s *transaction) settle(ctx context.Context) error {
	if err := s.record(ctx); err != nil {
		return err
	}
	p := &s.pending
	ids := make([]string, len(p.events))
	for i, e := range p.events {
		ids[i] = e.ID.String()
	}
	var marks string
	var xid *string
	var left []string
	if err := s.base.QueryRow(ctx, s.outbox.queries.Get("Survivors"), ids).Scan(&marks, &xid, &left); err != nil {
		return fmt.Errorf("look up what is left of the transaction: %w", err)
	}
	if xid != nil {
		s.xid = *xid
	}
	if len(left) < len(ids) {
		has := setOf(left)
		var gone []rocketflow.Event
		p.events, gone = split(p.events, func(e rocketflow.Event) bool { return has[e.ID.String()] })
		p.recorded = len(p.events)
		if slices.ContainsFunc(gone, func(e rocketflow.Event) bool { return s.inner[e.ID] }) {
			return errUndone
		}
		s.outbox.listener.RolledBack(gone, false)
	}
	marked := setOf(strings.Fields(marks))
	p.after = slices.DeleteFunc(p.after, func(a afterCommit) bool { return a.mark != "" && !marked[a.mark] })
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

// rollback ends a transaction that will not commit.
func (s *transaction) rollback(ctx context.Context) error {
	s.leave()
	err := s.base.Rollback(ctx)
	s.pending = pending{}
	return err
}

// runAfter calls the functions of AfterCommit. They share a goroutine, and whoever ends that leaves the others another.
func (s *transaction) runAfter() {
	after := s.pending.after
	for next := 0; next < len(after); {
		s.outbox.faults.Report("AfterCommit", guard.Run(func() {
			for next < len(after) {
				fn := after[next].fn
				next++
				s.outbox.faults.Report("AfterCommit", guard.Call(fn))
			}
		}))
	}
}

// commitError completes an error of COMMIT: it matches rocketflow.ErrCommitUnknown unless it is known that Postgres didn't
// commit.
func commitError(err error) error {
	if err == nil || refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", rocketflow.ErrCommitUnknown, err)
}

// refused tells whether it is known that Postgres did not commit. A FATAL error says nothing of the kind: the server may be
// ended while it waits for a replica, with the commit already on its disk.
func refused(err error) bool {
	var unsent uncommittedError
	if errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) || errors.As(err, &unsent) {
		return true
	}
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.SeverityUnlocalized == "ERROR"
}
