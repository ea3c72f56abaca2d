package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
)

const (
	reconcilePage = 500 // events that are read and compared at once
	// idMargin is how much earlier than it was recorded the id of an event may have been made: a transaction draws ids before it
	// records events, and by the clock of its process.
	idMargin = 10 * time.Minute
	// skewMargin is how far the clocks of the broker and of Postgres may differ.
	skewMargin = time.Minute
)

// publishedEvent is a row of an outbox.
type publishedEvent struct {
	id                       uuid.UUID
	source, topic, eventType string
	subject                  string
	sequence                 int64
	recordedAt, ackedAt      time.Time // ackedAt is zero while it is owed
	transaction              string
	rejected                 bool
	counts                   bool // it belongs to what is reconciled
}

// subscriber is a consumer of a topic.
type subscriber struct {
	m            *member
	key          consumerKey
	group        string
	born, begin  time.Time
	inboxKept    time.Duration        // how long it records events without order,
	positionKept time.Duration        // and positions
	types        map[string]time.Time // with a handler, and since when
	absent       bool                 // expected, and registered in no schema
	asked        bool                 // the broker has answered
	positions    []broker.QueuePosition
	total        ConsumerReconciliation
	kept         int       // events in reconciling.open
	surplus      int       // events beyond maxOpen that it had not settled when they were read
	surplusSince time.Time // when the oldest of these was recorded
}

// lag returns how many messages the group has not read, as far as the broker was asked.
func (s *subscriber) lag() (n int64) {
	for _, p := range s.positions {
		n += p.Lag()
	}
	return n
}

func (r *reconciling) loadSubscribers(ctx context.Context, m *member) error {
	return m.read(ctx, func(s snapshot) error {
		list, err := collect(ctx, s, "Subscribers", func(row pgx.CollectableRow, v *subscriber) error {
			var begin *time.Time
			var inbox, position float64
			var types []string
			var registered []time.Time
			err := row.Scan(&v.key.consumer, &v.group, &v.key.topic, &v.born, &begin, &inbox, &position, &types, &registered)
			v.m, v.key.member, v.begin = m, m.key, orZero(begin)
			v.inboxKept, v.positionKept = time.Duration(inbox*float64(time.Second)), time.Duration(position*float64(time.Second))
			v.types = map[string]time.Time{}
			for i, t := range types {
				v.types[t] = registered[i]
			}
			v.total = ConsumerReconciliation{Service: m.service, Schema: m.config.Schema, Consumer: v.key.consumer, Group: v.group}
			return err
		}, maxRows)
		if err != nil {
			return err
		}
		paused, err := s.pauses(ctx, "", 0)
		for i := range list {
			for _, p := range paused {
				if p.Consumer == list[i].key.consumer {
					list[i].total.Paused = append(list[i].total.Paused, p)
				}
			}
			r.subscribers = append(r.subscribers, &list[i])
		}
		return err
	})
}

// handles reports whether the consumer has to have a record of an event.
func (s *subscriber) handles(e publishedEvent, now time.Time) bool {
	if s.absent {
		return s.key.topic == e.topic
	}
	kept := s.inboxKept
	if e.sequence > 0 {
		kept = s.positionKept
	}
	_, handled := s.types[e.eventType]
	return s.key.topic == e.topic && handled && !e.recordedAt.Before(s.begin) && now.Sub(e.recordedAt) < kept
}

// mayBeUnread reports whether a message that was confirmed at t may be in a part of a queue that the group has not read.
func (s *subscriber) mayBeUnread(t time.Time) bool {
	return slices.ContainsFunc(s.positions, func(p broker.QueuePosition) bool {
		return p.Lag() > 0 && (p.Unread.IsZero() || t.After(p.Unread.Add(-skewMargin)))
	})
}

// mayHaveExpired reports whether the broker may have deleted a message that was confirmed at t, because it was too old.
func (s *subscriber) mayHaveExpired(t time.Time) bool {
	return slices.ContainsFunc(s.positions, func(p broker.QueuePosition) bool {
		return p.Begin > 0 && (p.Oldest.IsZero() || t.Before(p.Oldest.Add(skewMargin)))
	})
}

// wasBornAfter reports whether an event was recorded before the consumer first read the topic, or had a handler of the event: then it
// need not have handled it.
func (s *subscriber) wasBornAfter(e *openEvent) bool {
	return e.recordedAt.Before(s.born) || e.recordedAt.Before(s.types[e.eventType])
}

// hasRead reports whether the group has read a message.
func (s *subscriber) hasRead(m broker.StoredMessage) bool {
	i := slices.IndexFunc(s.positions, func(p broker.QueuePosition) bool { return p.Broker == m.Broker && p.Queue == m.Queue })
	return i >= 0 && m.Offset < s.positions[i].Committed
}

// readWindow compares the events of a schema that were recorded between from and to, of transactions before one; "0": of all.
func (r *reconciling) readWindow(ctx context.Context, publisher int, before string) error {
	after, end := idAt(r.from.Add(-idMargin)), idAt(r.to.Add(idMargin))
	for {
		page, err := r.page(ctx, publisher, "PublishedByID", after.String(), end.String(), r.from, r.to, before, reconcilePage)
		if err != nil {
			return err
		}
		if err := r.compare(ctx, publisher, page); err != nil {
			return err
		}
		if len(page) < reconcilePage {
			return nil
		}
		after = page[len(page)-1].id
	}
}

// idAt returns the first id of a millisecond.
func idAt(t time.Time) (id uuid.UUID) {
	ms := uint64(max(t.UnixMilli(), 0))
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id
}

// page reads events of a schema.
func (r *reconciling) page(ctx context.Context, publisher int, query string, args ...any) (page []publishedEvent, err error) {
	if err := r.stillAlone(ctx); err != nil {
		return nil, err
	}
	err = r.members[publisher].read(ctx, func(s snapshot) error {
		page, err = collect(ctx, s, query, func(row pgx.CollectableRow, e *publishedEvent) error {
			var id string
			var acked *time.Time
			if err := row.Scan(&id, &e.source, &e.topic, &e.eventType, &e.subject, &e.sequence, &e.recordedAt, &e.transaction, &acked, &e.rejected, &e.counts); err != nil {
				return err
			}
			e.ackedAt = orZero(acked)
			e.id, err = uuid.Parse(id)
			return err
		}, args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return page, nil
}

// compare looks up what the consumers have recorded of events of a schema.
func (r *reconciling) compare(ctx context.Context, publisher int, page []publishedEvent) error {
	page = slices.DeleteFunc(slices.Clone(page), func(e publishedEvent) bool { return !e.counts })
	claimed := make([]bool, len(page))
	p := &r.publishers[publisher]
	for _, s := range r.subscribers {
		var mine []publishedEvent
		for i, e := range page {
			if _, listed := r.only[e.id][s.key]; s.handles(e, r.now) && (r.only == nil || listed) {
				mine = append(mine, e)
				claimed[i] = true
			}
		}
		if err := r.judge(ctx, publisher, s, mine); err != nil {
			return fmt.Errorf("consumer %s of schema %s: %w", s.key.consumer, s.total.Schema, err)
		}
	}
	for i, e := range page {
		if r.only == nil {
			p.Published++
		}
		switch {
		case e.rejected:
			p.Rejected++
		case e.ackedAt.IsZero():
			p.Owed++
		}
		if !claimed[i] && r.only == nil && !r.settlesUnseen(e) {
			r.unclaimed[UnclaimedType{Topic: e.topic, Type: e.eventType}]++
		}
	}
	return nil
}

// settlesUnseen reports whether some consumer has a handler of the event's type, although it need not have a record of this event.
func (r *reconciling) settlesUnseen(e publishedEvent) bool {
	return slices.ContainsFunc(r.subscribers, func(s *subscriber) bool { _, handled := s.types[e.eventType]; return s.key.topic == e.topic && handled })
}

// judge looks up what a consumer has recorded of events.
func (r *reconciling) judge(ctx context.Context, publisher int, s *subscriber, events []publishedEvent) error {
	if len(events) == 0 {
		return nil
	}
	if err := r.stillAlone(ctx); err != nil {
		return err
	}
	add := func(e publishedEvent, unseen bool, position int64) {
		if s.total.Oldest.IsZero() || e.recordedAt.Before(s.total.Oldest) {
			s.total.Oldest = e.recordedAt
		}
		if s.kept == maxOpen {
			if s.surplus++; s.surplusSince.IsZero() || e.recordedAt.Before(s.surplusSince) {
				s.surplusSince = e.recordedAt
			}
			return
		}
		s.kept++
		r.open = append(r.open, openEvent{publishedEvent: e, publisher: publisher, by: s, unseen: unseen, position: position, known: r.only[e.id][s.key]})
	}
	if s.absent {
		for _, e := range events {
			add(e, true, -1)
		}
		return nil
	}
	ids, sources, subjects, sequences := make([]string, len(events)), make([]string, len(events)), make([]string, len(events)), make([]int64, len(events))
	for i, e := range events {
		ids[i], sources[i], subjects[i], sequences[i] = e.id.String(), e.source, e.subject, e.sequence
	}
	type verdict struct {
		n, position int64
		skipped     []int64
		inbox       bool
		reason      *string
		parked      *time.Time
	}
	var list []verdict
	err := s.m.read(ctx, func(t snapshot) (err error) {
		list, err = collect(ctx, t, "Judge", func(row pgx.CollectableRow, v *verdict) error {
			return row.Scan(&v.n, &v.position, &v.skipped, &v.inbox, &v.reason, &v.parked)
		}, s.key.consumer, s.key.topic, ids, sources, subjects, sequences)
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range list {
		e := events[v.n-1]
		switch {
		case v.reason != nil:
			if s.kept < maxOpen { // or else it is counted with the others beyond that
				if s.total.Parked == nil {
					s.total.Parked = map[HandlingState]int{}
				}
				s.total.Parked[HandlingState(*v.reason)]++
			}
			add(e, false, v.position)
		case passedOver(v.skipped, e.sequence):
			s.total.Skipped++
		case v.inbox, e.sequence > 0 && v.position >= e.sequence:
			s.total.Handled++
		default:
			add(e, true, v.position)
		}
	}
	return nil
}

// passedOver reports whether a sequence is within one of the pairs of position.skipped.
func passedOver(skipped []int64, sequence int64) bool {
	for i := 0; i+1 < len(skipped); i += 2 {
		if skipped[i] < sequence && sequence < skipped[i+1] {
			return true
		}
	}
	return false
}
