package operate

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed stream.sql
var streamSQL string

// SubjectFilter selects the streams of a subject.
type SubjectFilter struct {
	Subject string // required
	Topic   string // empty: streams of all topics
	// Limit is the maximum number of events of each stream, and of parked events.
	// Defaults to DefaultLimit.
	Limit int
}

// SubjectStatus is a report on the streams of one subject: those that the service publishes, and those that its consumers
// read.
type SubjectStatus struct {
	Streams   []Stream         `json:"streams"`
	Events    []StreamEvent    `json:"events"` // the newest of each stream first
	Positions []Position       `json:"positions"`
	Parked    []ParkedInStream `json:"parked"` // dead letters too
}

// Stream is a stream that the schema's service publishes.
type Stream struct {
	Source   string `json:"source"`
	Topic    string `json:"topic"`
	Sequence int64  `json:"sequence"` // of the last event
	Previous int64  `json:"previous"` // of the last event
}

// StreamEvent is an event of a stream in the outbox.
type StreamEvent struct {
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	ID         uuid.UUID `json:"id"`
	Type       string    `json:"type"`
	Sequence   int64     `json:"sequence"`
	Previous   int64     `json:"previous"`
	RecordedAt time.Time `json:"recorded_at"`
	AckedAt    time.Time `json:"acked_at,omitzero"` // zero: it is owed
}

// Position is how far a consumer is in a stream: all events up to Sequence are handled.
type Position struct {
	Consumer string `json:"consumer"`
	Source   string `json:"source"`
	Topic    string `json:"topic"`
	Sequence int64  `json:"sequence"`
	// Behind is the number of events in the outbox after the position; it ends at MaxCount. nil: another service publishes
	// the stream.
	Behind *int64 `json:"behind,omitempty"`
}

// ParkedInStream is a parked event of a stream.
type ParkedInStream struct {
	Consumer string        `json:"consumer"`
	Source   string        `json:"source"`
	Topic    string        `json:"topic"`
	EventID  uuid.UUID     `json:"event_id"`
	Type     string        `json:"type"`
	Sequence int64         `json:"sequence"`
	Previous int64         `json:"previous"`
	Reason   HandlingState `json:"reason"`
	ParkedStatus
}

// SubjectStatus returns the report on the streams of a subject, with at most 1,000 entries in each list.
func (o *Operator) SubjectStatus(ctx context.Context, f SubjectFilter) (*SubjectStatus, error) {
	if f.Subject == "" {
		return nil, valid.Field("operate.SubjectFilter.Subject", "missing")
	}
	if err := checkLimit("SubjectFilter", f.Limit); err != nil {
		return nil, err
	}
	var status SubjectStatus
	err := o.read(ctx, func(s snapshot) error { return s.subjectStatus(ctx, f, listLimit(f.Limit), &status) })
	if err != nil {
		return nil, printable.Errorf("read streams of %s: %w", f.Subject, err)
	}
	return &status, nil
}

// subjectStatus reads the report. parked is the maximum number of parked events of each stream and consumer.
func (s snapshot) subjectStatus(ctx context.Context, f SubjectFilter, parked int64, status *SubjectStatus) (err error) {
	limit := listLimit(f.Limit)
	status.Streams, err = collect(ctx, s, "Streams", func(row pgx.CollectableRow, v *Stream) error {
		return row.Scan(&v.Source, &v.Topic, &v.Sequence, &v.Previous)
	}, f.Subject, f.Topic, maxRows)
	if err != nil {
		return err
	}
	sources, topics := []string{}, []string{}
	for _, v := range status.Streams {
		sources, topics = append(sources, v.Source), append(topics, v.Topic)
	}
	status.Events, err = collect(ctx, s, "StreamEvents", func(row pgx.CollectableRow, v *StreamEvent) error {
		var acked *time.Time
		err := row.Scan(&v.Source, &v.Topic, &v.ID, &v.Type, &v.Sequence, &v.Previous, &v.RecordedAt, &acked)
		v.AckedAt = orZero(acked)
		return err
	}, f.Subject, sources, topics, limit)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	status.Positions, err = collect(ctx, s, "Positions", func(row pgx.CollectableRow, v *Position) error {
		return row.Scan(&v.Consumer, &v.Source, &v.Topic, &v.Sequence, &v.Behind)
	}, f.Subject, f.Topic, maxRows, MaxCount)
	if err != nil {
		return fmt.Errorf("positions: %w", err)
	}
	status.Parked, err = collect(ctx, s, "ParkedInStream", func(row pgx.CollectableRow, v *ParkedInStream) error {
		var next *time.Time
		err := row.Scan(&v.Consumer, &v.Source, &v.Topic, &v.EventID, &v.Type, &v.Sequence, &v.Previous, &v.Reason,
			&v.Attempts, &next, &v.LastError, &v.At)
		v.NextAt = orZero(next)
		return err
	}, f.Subject, f.Topic, max(limit, parked), parked)
	if err != nil {
		return fmt.Errorf("parked events: %w", err)
	}
	return nil
}

// Empty reports whether the tables of the schema have nothing about the subject.
func (s *SubjectStatus) Empty() bool {
	return len(s.Streams) == 0 && len(s.Positions) == 0 && len(s.Parked) == 0
}
