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
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// inProgress holds the events whose check is being answered, from the look-up to the ack: while one answer is on its
// way, the broker asking again must not get a second commit, which would deliver the event twice.
type inProgress struct {
	mu  sync.Mutex
	ids map[uuid.UUID]bool
}

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

// check answers the broker's question what became of a half message, from any process of the group:
//
//	an ack                                    rollback: it is out already
//	a row without an ack                      commit, and then an ack
//	nothing, younger than MaxTransaction      unknown: its transaction may be open
//	nothing, older                            rollback; should it commit after all, the sweep sends it
//	a row of another topic or type            rollback: it never becomes that row's event
//	of another database, or an error          unknown
//
// Commit is answered for a visible row alone: that is what keeps an event of an aborted transaction from going out.
func (o *Outbox) check(ctx context.Context, r *services, c broker.Check) (broker.Decision, func(error)) {
	info := CheckedInfo{Times: c.Message.Attempt}
	c.Message.Body = nil // nobody reads it
	event, err := wire.EventOf(c.Message)
	info.EventID = event.ID
	answer := func(d broker.Decision, reason string, err error) broker.Decision {
		info.Decision, info.Reason, info.Err = d, reason, err
		o.checkLog.say(o.log, info, event.Database)
		o.listener.Checked(info)
		return d
	}
	if err != nil {
		return answer(broker.Unknown, "unreadable half message", err), nil
	}
	if event.Database != r.database {
		return answer(broker.Unknown, reasonForeign, nil), nil
	}
	if !r.checking.begin(event.ID) {
		return answer(broker.Unknown, "another check of it is being answered", nil), nil
	}
	answered := false // then the end of the answer ends the check; otherwise this call does, even by a panic
	defer func() {
		if !answered {
			r.checking.end(event.ID)
		}
	}()
	found, err := r.lookups.Do(ctx, event.ID)
	ours := found.topic == event.Topic && found.kind == event.Type
	if err == nil && found.recorded && ours && !found.acked && !found.replica {
		d := answer(broker.Commit, "committed", nil)
		answered = true
		return d, func(err error) {
			defer r.checking.end(event.ID)
			if err != nil {
				o.log.Warn("commit of a checked half message failed", "event_id", event.ID, "error", err)
				return // the broker asks again, or the sweep sends it
			}
			// Written down before another check of this event can look.
			ctx, cancel := context.WithTimeout(context.Background(), o.config.EndTimeout)
			defer cancel()
			_, _ = r.ackChecked.Do(ctx, event.ID) // what fails is reported, and the event doubled
		}
	}
	switch {
	case err != nil:
		return answer(broker.Unknown, "database error", fmt.Errorf("check event %s: %w", event.ID, err)), nil
	case found.replica:
		return answer(broker.Unknown, "the database is a replica", nil), nil
	case found.acked:
		return answer(broker.Rollback, "out already", nil), nil
	case found.recorded && !ours:
		o.log.Warn("a half message is not that of the event recorded under its id: it is rolled back; somebody else made it, or an operator redirected or discarded the event",
			"event_id", event.ID, "topic", event.Topic, "type", event.Type, "recorded_topic", found.topic, "recorded_type", found.kind)
		return answer(broker.Rollback, "not the recorded event", nil), nil
	case found.now.Sub(idTime(event.ID)) < o.config.MaxTransaction:
		return answer(broker.Unknown, "perhaps still open", nil), nil
	default:
		return answer(broker.Rollback, "never committed", nil), nil
	}
}

// found is what the database says of an event.
type found struct {
	acked, recorded, replica bool
	topic, kind              string // of the row
	now                      time.Time
}

// maxLookups bounds a query for checks. After a crash there can be thousands.
const maxLookups = 256

// lookUp answers for many events in one query: the checks of a crash must not take the connections of the living.
func (o *Outbox) lookUp(ctx context.Context, ids []uuid.UUID) ([]found, error) {
	var all []found
	err := o.query(ctx, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
			return f, row.Scan(&f.acked, &f.recorded, &f.topic, &f.kind, &f.replica, &f.now)
		})
		return err
	}, "Check", texts(ids))
	if err == nil && len(all) != len(ids) {
		err = fmt.Errorf("%d answers for %d events", len(all), len(ids))
	}
	return all, err
}

// ackChecked writes down what checks have committed. What fails now is tried again with other acks.
func (o *Outbox) ackChecked(ctx context.Context, r *services, ids []uuid.UUID) ([]struct{}, error) {
	if err := o.ack(ctx, ids); err != nil {
		for _, id := range ids {
			r.acks.add(id)
		}
	}
	return make([]struct{}, len(ids)), nil
}

const reasonForeign = "of another database"

// checkLog says once why checks can't be answered: the broker asks for each half message, again and again.
type checkLog struct {
	mu       sync.Mutex
	failures failureStreak
	foreign  map[string]bool // databases
}

// maxForeign bounds the memory.
const maxForeign = 100

func (l *checkLog) say(log *slog.Logger, i CheckedInfo, database string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case i.Err != nil:
		if l.failures.begins(i.Err) {
			log.Warn("a check-back can't be answered; the broker asks again, and the sweep sends what is committed",
				"event_id", i.EventID, "reason", i.Reason, "times", i.Times, "error", i.Err)
		}
	case i.Reason == reasonForeign:
		if database = printable.Text(database, 100); !l.foreign[database] && len(l.foreign) < maxForeign {
			if l.foreign == nil {
				l.foreign = map[string]bool{}
			}
			l.foreign[database] = true
			log.Warn("a check-back asks for an event of another database: give services of different databases groups of different names",
				"event_id", i.EventID, "database", database)
		}
	default:
		l.failures.end(log, "check-backs are answered again")
	}
}

// idTime is when a UUIDv7 was drawn.
func idTime(id uuid.UUID) time.Time { return time.Unix(id.Time().UnixTime()) }
