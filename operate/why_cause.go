package operate

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// cause adds to the time line which event a handler handled when it published this one.
func (w *inquiry) cause(ctx context.Context, e *explained) error {
	if e.Cause == nil || e.publisher == nil {
		return nil
	}
	handled := EventStatus{ID: e.Cause.EventID}
	for i := range w.members {
		m := &w.members[i]
		known := false
		err := m.read(ctx, func(s snapshot) (err error) {
			known, err = s.event(ctx, &handled)
			return err
		})
		if err != nil {
			return fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
		if known {
			break
		}
	}
	what := "event"
	if handled.Type != "" {
		what = handled.Type
	}
	w.x.Timeline = append(w.x.Timeline, Entry{
		At: e.RecordedAt, Service: e.publisher.service, Text: fmt.Sprintf("published while %s handled %s %s", e.Cause.Consumer, what, e.Cause.EventID), EventID: e.Cause.EventID,
	})
	return nil
}

// maxEffects is how many of the events that handlers published while they handled one are listed, for each schema.
const maxEffects = 50

// effects adds to the time line what handlers published while they handled the event.
func (w *inquiry) effects(ctx context.Context, id uuid.UUID) error {
	for i := range w.members {
		m := &w.members[i]
		err := m.read(ctx, func(s snapshot) error {
			list, err := collect(ctx, s, "PublishedWhileHandled", func(row pgx.CollectableRow, e *Entry) error {
				var consumer, eventType, topic, subject string
				err := row.Scan(&e.EventID, &e.At, &consumer, &eventType, &topic, &subject)
				e.Service, e.Text = m.service, fmt.Sprintf("%s: published %s of %s to topic %s while it handled this", consumer, eventType, subjectText(subject), topic)
				return err
			}, id.String(), maxEffects+1)
			if len(list) > maxEffects {
				w.x.Omitted += len(list) - maxEffects // at least
				list = list[:maxEffects]
			}
			w.x.Timeline = append(w.x.Timeline, list...)
			return err
		})
		if err != nil {
			return fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	return nil
}
