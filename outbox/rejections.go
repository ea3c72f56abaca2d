package outbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

//go:embed rejections.sql
var rejectionsSQL string

// rejectedEvent is an event that the broker has rejected.
type rejectedEvent struct {
	id      uuid.UUID
	topic   string
	reason  string
	ofTopic bool // the reason concerns all events of the topic
}

// maxReason bounds the text of a reason.
const maxReason = 500

func newRejected(e rocketflow.Event, err error) rejectedEvent {
	ofTopic := errors.Is(err, broker.ErrTopicNotFound) || errors.Is(err, broker.ErrUnauthorized)
	return rejectedEvent{e.ID, e.Topic, printable.Text(err.Error(), maxReason), ofTopic}
}

// startRejections starts the batcher that records the relay's events that the broker has rejected.
func (o *Outbox) startRejections() *batcher[rejectedEvent] {
	return startBatcher(func(ctx context.Context, batch []rejectedEvent, failures *failureStreak) error {
		err := o.recordRejections(ctx, batch, true)
		if err == nil {
			failures.end(o.log, "rejections are recorded again")
		} else if failures.begins(err) {
			o.log.Warn("rejections can't be recorded and are retried; until then the sweep sends these events in every pass", keyEvents, len(batch), keyError, err)
		}
		return err
	})
}

// recordRejections records events that the broker has rejected, so that the sweep's passes skip them. relayed reports that
// the relay sent them after a commit, not for the sweep.
func (o *Outbox) recordRejections(ctx context.Context, all []rejectedEvent, relayed bool) error {
	ids, topics, reasons, ofTopic := make([]string, len(all)), make([]string, len(all)), make([]string, len(all)), make([]bool, len(all))
	topic := map[string]RejectedInfo{}
	for i, r := range all {
		ids[i], topics[i], reasons[i], ofTopic[i] = r.id.String(), r.topic, r.reason, r.ofTopic
		info := topic[r.topic]
		topic[r.topic] = RejectedInfo{Topic: r.topic, Reason: r.reason, Events: info.Events + 1}
	}
	if _, err := o.db().Exec(ctx, o.queries.Get("Reject"), ids, topics, reasons, ofTopic); err != nil {
		return fmt.Errorf("record rejected events: %w", err)
	}
	o.backlog.reject(all, relayed) // before loggedReasons.add: updateBacklog forgets the reasons of topics that aren't counted
	for _, name := range slices.Sorted(maps.Keys(topic)) {
		info := topic[name]
		if o.loggedReasons.add(name, info.Reason) {
			o.log.Error("the broker rejects events of a topic: they stay owed and are retried; remove the cause, or list, redirect or discard them (rocketflow owed)",
				keyTopic, name, keyEvents, info.Events, keyEvent, firstOf(all, name), keyError, info.Reason)
		}
		o.listener.Rejected(info)
	}
	return nil
}

func firstOf(all []rejectedEvent, topic string) uuid.UUID {
	return all[slices.IndexFunc(all, func(r rejectedEvent) bool { return r.topic == topic })].id
}

// loggedReasons holds the reason that was logged for each topic with rejected events.
type loggedReasons struct {
	mu      sync.Mutex
	reasons map[string]string
}

// add notes the reason and reports whether to log it, because another one was logged last for the topic, or none.
func (l *loggedReasons) add(topic, reason string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.reasons[topic]; ok && last == reason {
		return false
	}
	if l.reasons == nil {
		l.reasons = map[string]string{}
	}
	l.reasons[topic] = reason
	return true
}

// forget drops the topics that are no longer among rejected, and returns them.
func (l *loggedReasons) forget(rejected map[string]*rejectedTopic) (over []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic := range l.reasons {
		if rejected[topic] == nil {
			delete(l.reasons, topic)
			over = append(over, topic)
		}
	}
	return over
}

// retryRejected sends the rejected events that are due again: one event of each topic whose events are all rejected, and
// events that are rejected for reasons of their own.
func (s *sweeper) retryRejected(ctx context.Context, state sweepState) (sent int, err error) {
	if !state.anyRejected {
		return 0, nil
	}
	for {
		rows, err := s.rejectedDue(ctx, s.pageRows)
		if err != nil || len(rows) == 0 {
			return sent, err
		}
		out, sendErr := s.send(ctx, slices.Clone(rows))
		sent += len(out.acked)
		// Events that the broker has accepted, and those that load didn't find because they were acknowledged or dropped meanwhile.
		var settled, topics []string
		for _, r := range rows {
			id := r.event.ID
			if out.acked[id] || sendErr == nil && !out.rejected[id] {
				settled = append(settled, id.String())
			}
			if out.acked[id] && !slices.Contains(topics, r.event.Topic) {
				topics = append(topics, r.event.Topic)
			}
		}
		if len(settled) > 0 {
			write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			_, err := s.outbox.db().Exec(write, s.outbox.queries.Get("Accepted"), settled, nonNil(topics))
			cancel()
			if err != nil {
				return sent, fmt.Errorf("delete the rejections of events that were sent: %w", err)
			}
		}
		if sendErr != nil {
			return sent, sendErr
		}
		if len(out.acked) == 0 {
			return sent, nil
		}
	}
}

func nonNil(texts []string) []string {
	if texts == nil {
		return []string{}
	}
	return texts
}

func (s *sweeper) rejectedDue(ctx context.Context, limit int) ([]owedRow, error) {
	rows, err := s.outbox.db().Query(ctx, s.outbox.queries.Get("RejectedDue"), limit)
	if err != nil {
		return nil, fmt.Errorf("find rejected events: %w", err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r owedRow, err error) {
		e := &r.event
		return r, row.Scan(&e.ID, &e.Topic, &e.Sequence, &e.Time, &r.size)
	})
	if err != nil {
		return nil, fmt.Errorf("find rejected events: %w", err)
	}
	return due, nil
}

// countRejected writes the number of rejected events by topic for all processes, at most once in countInterval.
func (s *sweeper) countRejected(ctx context.Context, state sweepState) error {
	o := s.outbox
	if !state.anyRejected && len(state.rejected) == 0 || time.Since(s.counted) < countInterval {
		return nil
	}
	s.counted = time.Now()
	if _, err := o.db().Exec(ctx, o.queries.Get("CountRejected")); err != nil {
		return fmt.Errorf("count rejected events: %w", err)
	}
	return nil
}
