package inspect

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Subject is what a database knows of the streams of one subject.
type Subject struct {
	Streams   []Stream       `json:"streams"`
	Events    []StreamEvent  `json:"events"` // the newest of each stream first
	Positions []Position     `json:"positions"`
	Parked    []StreamParked `json:"parked"`
}

// Stream is one that this database publishes.
type Stream struct {
	Source   string `json:"source"`
	Topic    string `json:"topic"`
	Sequence int64  `json:"sequence"`
	Previous int64  `json:"previous"` // of the last event
}

// StreamEvent is a row of the outbox.
type StreamEvent struct {
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	ID         uuid.UUID `json:"id"`
	Type       string    `json:"type"`
	Sequence   int64     `json:"sequence"`
	RecordedAt time.Time `json:"recorded_at"`
	AckedAt    time.Time `json:"acked_at,omitzero"` // zero: owed
}

// Position is how far a consumer is.
type Position struct {
	Consumer string `json:"consumer"`
	Source   string `json:"source"`
	Topic    string `json:"topic"`
	Sequence int64  `json:"sequence"`
	// Behind is how many events of the outbox come after it, MaxCount for more; nil where another database publishes.
	Behind *int64 `json:"behind,omitempty"`
}

// StreamParked is an event of the subject that is parked.
type StreamParked struct {
	Consumer string    `json:"consumer"`
	Source   string    `json:"source"`
	Topic    string    `json:"topic"`
	EventID  uuid.UUID `json:"event_id"`
	Type     string    `json:"type"`
	Sequence int64     `json:"sequence"`
	Previous int64     `json:"previous"`
	Reason   State     `json:"reason"`
	Parked
}

// Subject returns the streams of a subject, in a topic or, if that is empty, in all; of events and parked events up to
// limit each.
func (r *Reader) Subject(ctx context.Context, subject, topic string, limit int) (*Subject, error) {
	var s Subject
	var err error
	s.Streams, err = collect(ctx, r, "Streams", func(row pgx.CollectableRow, v *Stream) error {
		return row.Scan(&v.Source, &v.Topic, &v.Sequence, &v.Previous)
	}, subject, topic, maxRows)
	if err != nil {
		return nil, fmt.Errorf("read streams of %s: %w", subject, err)
	}
	var sources, topics []string
	for _, v := range s.Streams {
		sources, topics = append(sources, v.Source), append(topics, v.Topic)
	}
	s.Events, err = collect(ctx, r, "StreamEvents", func(row pgx.CollectableRow, v *StreamEvent) error {
		var acked *time.Time
		err := row.Scan(&v.Source, &v.Topic, &v.ID, &v.Type, &v.Sequence, &v.RecordedAt, &acked)
		v.AckedAt = orZero(acked)
		return err
	}, subject, sources, topics, limit)
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", subject, err)
	}
	s.Positions, err = collect(ctx, r, "Positions", func(row pgx.CollectableRow, v *Position) error {
		return row.Scan(&v.Consumer, &v.Source, &v.Topic, &v.Sequence, &v.Behind)
	}, subject, topic, maxRows, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("read positions in %s: %w", subject, err)
	}
	s.Parked, err = collect(ctx, r, "StreamParked", func(row pgx.CollectableRow, v *StreamParked) error {
		var next *time.Time
		err := row.Scan(&v.Consumer, &v.Source, &v.Topic, &v.EventID, &v.Type, &v.Sequence, &v.Previous, &v.Reason,
			&v.Attempts, &next, &v.LastError, &v.At)
		v.NextAt = orZero(next)
		return err
	}, subject, topic, limit)
	if err != nil {
		return nil, fmt.Errorf("read parked events of %s: %w", subject, err)
	}
	return &s, nil
}

// Empty tells whether nothing is known of the subject.
func (s *Subject) Empty() bool {
	return len(s.Streams) == 0 && len(s.Positions) == 0 && len(s.Parked) == 0
}
