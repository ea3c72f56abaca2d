package outbox

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// acker writes acknowledgements, in batches and in the background. If one is lost, its event is sent twice, which the
// consumers' inbox absorbs; so no transaction waits for them.
type acker = batcher[acked]

// acked is an event that the broker has confirmed.
type acked struct {
	id   uuid.UUID
	path ackPath
}

// ackPath says how an event reached the broker: the column path of outbox_ack, by which operators see it.
type ackPath int16

const (
	byHalfMessage ackPath = 1
	byRelay       ackPath = 2
	bySweep       ackPath = 3
	byCheckBack   ackPath = 4 // a check-back committed the half message
)

func (o *Outbox) startAcks() *acker {
	return startBatcher(func(ctx context.Context, events []acked, failures *failureStreak) error {
		err := o.ack(ctx, events)
		if err != nil && failures.begins(err) {
			o.log.Warn("acknowledgements can't be written and are retried; if this process ends before, their events are sent twice",
				keyEvents, len(events), keyError, err)
		} else if err == nil {
			failures.end(o.log, "acknowledgements are written again")
		}
		return err
	})
}

// ack inserts acknowledgements of events.
func (o *Outbox) ack(ctx context.Context, events []acked) error {
	begin := time.Now()
	ids, paths := make([]uuid.UUID, len(events)), make([]int16, len(events))
	for i, e := range events {
		ids[i], paths[i] = e.id, int16(e.path)
	}
	_, err := o.db().Exec(ctx, o.queries.Get("Ack"), texts(ids), paths)
	o.listener.Acked(AckedInfo{IDs: ids, Took: time.Since(begin), Err: err})
	return err
}

// db runs the outbox's own statements.
func (o *Outbox) db() lazytx.DB { return lazytx.On(o.config.Pool) }

// texts returns ids as a parameter of type text[], which all of pgx's modes to run a query can encode.
func texts(ids []uuid.UUID) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = id.String()
	}
	return all
}
