package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// inProgress is the set of events that a check-back or the sweep is sending, from the look-up to the acknowledgement. It
// prevents a repeated check-back from committing the half message a second time, which would deliver the event twice.
type inProgress struct {
	mu  sync.Mutex
	ids map[uuid.UUID]bool
}

// begin returns false if the event is in progress already; otherwise end must follow.
func (p *inProgress) begin(id uuid.UUID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids[id] {
		return false
	}
	if p.ids == nil {
		p.ids = map[uuid.UUID]bool{}
	}
	p.ids[id] = true
	return true
}

func (p *inProgress) end(id uuid.UUID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ids, id)
}

// CheckReason says why a check-back got its decision.
type CheckReason string

// The reasons of Listener.Checked.
const (
	CheckCommitted      CheckReason = "committed"                 // commit: there is a row without an acknowledgement
	CheckAcknowledged   CheckReason = "acknowledged"              // rollback: the event was sent
	CheckMaybeOpen      CheckReason = "may be open"               // unknown: no row yet, and the transaction may be open
	CheckNeverCommitted CheckReason = "never committed"           // rollback: no row, and MaxTransaction has passed
	CheckNotRecorded    CheckReason = "another event is recorded" // rollback: the row is of another topic or type
	CheckOtherDatabase  CheckReason = "other database"            // unknown: a service of another database shares the group
	CheckInProgress     CheckReason = "in progress"               // unknown: another check-back of it, or the sweep, is sending the event
	CheckReplica        CheckReason = "replica"                   // unknown: the database takes no writes
	CheckDatabaseError  CheckReason = "database error"            // unknown; Err says which
	CheckUnreadable     CheckReason = "unreadable half message"   // unknown; Err says why
)

// check decides about a half message when the broker checks back. The broker checks back with any process of the group.
//
//	an acknowledgement                        rollback: it was sent
//	a row without an acknowledgement          commit, and then an acknowledgement
//	nothing, younger than MaxTransaction      unknown: its transaction may be open
//	nothing, older                            rollback; should it commit after all, the sweep sends it
//	a row of another topic or type            rollback: it never becomes that row's event
//	of another database, or an error          unknown
//
// The decision is commit only for a visible row, so that an event of an aborted transaction is never sent. done, if not nil,
// must be called when the broker has received the decision.
func (o *Outbox) check(ctx context.Context, r *services, c broker.Check) (decision broker.Decision, done func(error)) {
	info := CheckedInfo{Times: c.Message.Attempt}
	c.Message.Body = nil // not needed, and it may be large
	event, err := wire.EventOf(c.Message)
	info.EventID = event.ID
	if err == nil {
		info.Event = event
	}
	decide := func(d broker.Decision, reason CheckReason, err error) broker.Decision {
		info.Decision, info.Reason, info.Err = d, reason, err
		o.checkLog.log(o.log, info, event.Database)
		o.listener.Checked(info)
		return d
	}
	if err != nil {
		return decide(broker.Unknown, CheckUnreadable, err), nil
	}
	if event.Database != r.database {
		return decide(broker.Unknown, CheckOtherDatabase, nil), nil
	}
	if !r.checking.begin(event.ID) {
		return decide(broker.Unknown, CheckInProgress, nil), nil
	}
	committing := false // then done ends the check; otherwise this call does, also after a panic
	defer func() {
		if !committing {
			r.checking.end(event.ID)
		}
	}()
	found, err := r.lookups.Do(ctx, event.ID)
	ours := found.topic == event.Topic && found.kind == event.Type
	if err == nil && found.recorded && ours && !found.acked && !found.replica {
		d := decide(broker.Commit, CheckCommitted, nil)
		committing = true
		return d, func(err error) {
			defer r.checking.end(event.ID)
			if err != nil {
				o.log.Warn("the commit of a half message after its check-back failed; the broker checks back again, or the sweep sends the event", keyEvent, event.ID, keyError, err)
				return
			}
			// Acknowledged before another check-back of this event can look it up.
			ctx, cancel := context.WithTimeout(context.Background(), o.config.EndTimeout)
			defer cancel()
			_, _ = r.ackChecked.Do(ctx, event.ID) // a failure is reported by ack; the event may be sent twice then
		}
	}
	switch {
	case err != nil:
		return decide(broker.Unknown, CheckDatabaseError, fmt.Errorf("look up event %s: %w", event.ID, err)), nil
	case found.replica:
		return decide(broker.Unknown, CheckReplica, nil), nil
	case found.acked:
		return decide(broker.Rollback, CheckAcknowledged, nil), nil
	case found.recorded && !ours:
		o.log.Warn("a half message differs from the event that is recorded under its id and is rolled back: another program made it, or an operator redirected or discarded the event",
			keyEvent, event.ID, keyTopic, event.Topic, keyType, event.Type, keyRecordedTopic, found.topic, keyRecordedType, found.kind)
		return decide(broker.Rollback, CheckNotRecorded, nil), nil
	case found.now.Sub(clock.TimeOf(event.ID)) < o.config.MaxTransaction:
		return decide(broker.Unknown, CheckMaybeOpen, nil), nil
	default:
		return decide(broker.Rollback, CheckNeverCommitted, nil), nil
	}
}

// storedEvent is what the database holds about the event of a half message.
type storedEvent struct {
	acked, recorded, replica bool
	topic, kind              string // of the row
	now                      time.Time
}

// maxLookups bounds a query for check-backs, of which there can be thousands after a crash.
const maxLookups = 256

// lookUp looks up many events in one query, because the check-backs after a crash must not use up the connections.
func (o *Outbox) lookUp(ctx context.Context, ids []uuid.UUID) ([]storedEvent, error) {
	rows, err := o.db().Query(ctx, o.queries.Get("Check"), texts(ids))
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f storedEvent, err error) {
		return f, row.Scan(&f.acked, &f.recorded, &f.topic, &f.kind, &f.replica, &f.now)
	})
	if err == nil && len(all) != len(ids) {
		err = fmt.Errorf("%d rows for %d events", len(all), len(ids))
	}
	return all, err
}

// ackChecked acknowledges what check-backs have committed. What fails is retried with other acknowledgements.
func (o *Outbox) ackChecked(ctx context.Context, r *services, ids []uuid.UUID) ([]struct{}, error) {
	events := make([]acked, len(ids))
	for i, id := range ids {
		events[i] = acked{id, byCheckBack}
	}
	if err := o.ack(ctx, events); err != nil {
		for _, id := range ids {
			r.acks.add(acked{id, byCheckBack})
		}
	}
	return make([]struct{}, len(ids)), nil
}

// checkLog logs once why check-backs can't be decided: the broker repeats them for each half message.
type checkLog struct {
	mu       sync.Mutex
	failures failureStreak
	foreign  map[string]bool // databases
}

// maxForeign bounds foreign.
const maxForeign = 100

func (l *checkLog) log(log *slog.Logger, i CheckedInfo, database string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case i.Err != nil:
		if l.failures.begins(i.Err) {
			log.Warn("a check-back can't be decided; the broker repeats it, and the sweep sends the event if its transaction committed",
				keyEvent, i.EventID, keyReason, i.Reason, keyTimes, i.Times, keyError, i.Err)
		}
	case i.Reason == CheckOtherDatabase:
		if database = printable.Text(database, 100); !l.foreign[database] && len(l.foreign) < maxForeign {
			if l.foreign == nil {
				l.foreign = map[string]bool{}
			}
			l.foreign[database] = true
			log.Warn("a check-back is for an event of another database, so this process can't decide it: give services of different databases different outbox.Config.Group",
				keyEvent, i.EventID, keyDatabase, database)
		}
	default:
		l.failures.end(log, "check-backs are decided again")
	}
}
