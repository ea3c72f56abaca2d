package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// notSeen explains an event of which a consumer has recorded nothing, by what the broker says.
func (w *inquiry) notSeen(ctx context.Context, m *member, e *explained, c reader, at brokerAnswer, pause *Pause, add func(time.Time, bool, string, ...any)) error {
	switch {
	case e.Topic == "" || e.TimeoutName != "" || e.publisher == nil || !e.InOutbox:
		return nil
	case e.Sequence == 0 && !c.handles:
		add(time.Time{}, false, "has no handler of %s", e.Type)
		return nil
	case e.RecordedAt.Before(c.begin):
		add(time.Time{}, false, "begins with later events (%s)", c.begin.UTC().Format(time.RFC3339))
		return nil
	case e.AckedAt.IsZero():
		add(time.Time{}, false, "has not received it")
		return nil
	}
	before := e.RecordedAt.Before(c.since) || e.RecordedAt.Before(c.BornAt) // then it need not have handled it
	v := Verdict{State: VerdictWaiting, For: c.Name + " of " + m.service + " to read it", Since: e.AckedAt}
	v.Command = m.command("rocketflow", "inspect", "backlog")
	resend := e.publisher.command("rocketflow", "resend", "--event", e.ID.String())
	position, state := w.queueOf(ctx, c, e, at)
	if state == brokerPassed {
		// It may have been handled since the table was read.
		again, err := w.readAgain(ctx, m, e, c.Name)
		if err != nil {
			return err
		}
		if again.State != StateNotSeen {
			return w.reader(ctx, m, e, again, at)
		}
	}
	if before && (state == brokerLost || state == brokerPassed) {
		add(time.Time{}, false, "has no record of it: it was published before the consumer had a handler of %s", e.Type)
		return nil
	}
	if pause != nil && (state == brokerUnknown || state == brokerUnread) {
		add(time.Time{}, true, "has recorded nothing of it, and %s", pause.since())
		w.verdicts = append(w.verdicts, w.pausedVerdict(m, pause, ""))
		return nil
	}
	switch state {
	case brokerUnknown:
		v.State = VerdictUnknown
		v.Because = "it has recorded nothing of it, and the broker was not asked what it has read"
		if !at.asked {
			v.Command = command("rocketflow", "why", e.ID.String(), "--namesrv", "HOST:PORT")
		}
		add(time.Time{}, true, "has recorded nothing of it")
	case brokerUnread:
		unread := countOf(int(max(position.offset-max(position.Committed, position.Begin), 0)), "unread message")
		v.Because = fmt.Sprintf("it is unread in queue %d of %s, and group %s has %s before it: see that a process of %s runs", position.Queue, position.Broker, c.group, unread, m.service)
		v.Command = ""
		if position.never {
			v.State = VerdictStopped
			v.Because = fmt.Sprintf("group %s has never read the topic: start a process of %s with the consumer; if one runs, see in its log whether the broker refuses it", c.group, m.service)
		}
		add(time.Time{}, true, "has not read it: it has %s in the queue before it", unread)
	case brokerLost:
		v.State = VerdictLost
		v.For = "the event to be sent again"
		v.Because = fmt.Sprintf("the broker confirmed it and holds it no more, unless a master is away, and %s has no record of it", c.Name)
		v.Command = resend
		if position.Committed > position.End {
			v.Because += fmt.Sprintf("; before it is sent again, a consumer of group %s must run for a minute: the group is beyond the end of queue %d of %s and would not read it", c.group, position.Queue, position.Broker)
		}
		add(time.Time{}, true, "has recorded nothing of it, and the broker doesn't hold it any more")
	case brokerPassed:
		v.State = VerdictLost
		v.For = "somebody to decide whether it was handled"
		v.Because = fmt.Sprintf("group %s has read past it (offset %d of queue %d of %s), but %s has no record of it: rows of the tables position or inbox were deleted, or the group's offsets were moved", c.group, position.offset, position.Queue, position.Broker, c.Name)
		v.Command = resend
		add(time.Time{}, true, "has recorded nothing of it, though its group has read past it")
	}
	w.verdicts = append(w.verdicts, v)
	return nil
}

// readAgain reads again what a consumer has recorded of the event.
func (w *inquiry) readAgain(ctx context.Context, m *member, e *explained, consumer string) (found reader, err error) {
	err = m.read(ctx, func(s snapshot) error {
		list, err := s.readers(ctx, &e.EventStatus)
		if i := slices.IndexFunc(list, func(c reader) bool { return c.Name == consumer }); i >= 0 {
			found = list[i]
		}
		return err
	})
	return found, err
}

// queueState says where an event that a consumer has not recorded is.
type queueState int

// indexDelay is how long after it stored a message a broker's index may not have it yet.
const indexDelay = 10 * time.Second

type queuePlace struct {
	broker.QueuePosition
	offset int64 // of the event
	never  bool  // the group has read no queue of the topic
}

// queueOf asks the broker how far the consumer's group is in the queue that has the event.
func (w *inquiry) queueOf(ctx context.Context, c reader, e *explained, at brokerAnswer) (queuePlace, queueState) {
	if !at.asked || c.group == "" {
		return queuePlace{}, brokerUnknown
	}
	ask, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	positions, err := w.config.Broker.QueuePositions(ask, c.group, e.Topic)
	if err != nil {
		w.x.Broker = err.Error()
		return queuePlace{}, brokerUnknown
	}
	if len(at.stored) == 0 {
		if w.x.Now.Sub(e.AckedAt) < indexDelay {
			return queuePlace{}, brokerUnknown
		}
		if i := slices.IndexFunc(positions, func(p broker.QueuePosition) bool { return p.Committed > p.End }); i >= 0 {
			return queuePlace{QueuePosition: positions[i]}, brokerLost
		}
		return queuePlace{}, brokerLost
	}
	never := !slices.ContainsFunc(positions, func(p broker.QueuePosition) bool { return p.Committed >= 0 })
	state, place := brokerPassed, queuePlace{}
	for _, stored := range at.stored {
		i := slices.IndexFunc(positions, func(p broker.QueuePosition) bool { return p.Broker == stored.Broker && p.Queue == stored.Queue })
		if i < 0 {
			continue
		}
		place = queuePlace{positions[i], stored.Offset, never}
		if stored.Offset >= positions[i].Committed {
			return place, brokerUnread
		}
	}
	return place, state
}
