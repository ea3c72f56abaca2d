package operate

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed parked_page.sql
var parkedPageSQL string

const (
	// MaxGrouped is how many dead letters DeadLetterGroups looks at.
	MaxGrouped = 10_000
	// MaxBehind is the highest value of ParkedStream.Behind, which means that many or more.
	MaxBehind = 1000

	maxGroups = 200
)

// ParkedPageFilter selects dead letters or other parked events. An event is selected if it matches all fields that are set.
type ParkedPageFilter struct {
	Dead                                   bool // dead letters; false: parked events that aren't
	Consumer, Source, Topic, Type, Subject string
	Error                                  string // a kind of errors: DeadLetterGroup.Error
	After                                  Cursor // of the page before
	Limit                                  int    // the maximum number of events. Defaults to 50.
}

// ParkedRow is a parked event of a list, without its body.
type ParkedRow struct {
	Consumer   string        `json:"consumer"`
	EventID    uuid.UUID     `json:"event_id"`
	Source     string        `json:"source"`
	Topic      string        `json:"topic"`
	Type       string        `json:"type"`
	Subject    string        `json:"subject,omitempty"`
	Sequence   int64         `json:"sequence,omitempty"`
	RecordedAt time.Time     `json:"recorded_at"`
	Size       int           `json:"size"` // of its body, in bytes
	Reason     HandlingState `json:"reason"`
	ParkedStatus
}

// ParkedPage is a page of dead letters or parked events.
type ParkedPage struct {
	Events []ParkedRow `json:"events"` // the longest parked first
	Next   Cursor      `json:"next,omitempty"`
	// ScannedTo is set if the page is short because enough rows were looked at for it: the list has come to what was parked at this
	// time, and Next continues.
	ScannedTo time.Time `json:"scanned_to,omitzero"`
}

// ParkedPage lists dead letters or parked events. A page of all or of a consumer is found by an index; with other fields set, it looks at
// up to 5,000 events of each consumer.
func (o *Operator) ParkedPage(ctx context.Context, f ParkedPageFilter) (*ParkedPage, error) {
	if err := checkLimit("ParkedPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	key, err := f.After.key("ParkedPageFilter", "-infinity", "-1", uuid.Nil.String(), "", "")
	if err != nil {
		return nil, err
	}
	at, id := key[0], key[2]
	sequence, err := strconv.ParseInt(key[1], 10, 64)
	if _, e := uuid.Parse(id); err != nil || e != nil {
		return nil, cursorError("ParkedPageFilter")
	}
	if _, err := time.Parse(time.RFC3339Nano, at); err != nil && at != "-infinity" {
		return nil, cursorError("ParkedPageFilter")
	}
	look := f.Limit + 1
	if f.Source+f.Topic+f.Type+f.Subject+f.Error != "" {
		look = max(look, maxScan)
	}
	p := &ParkedPage{}
	err = o.read(ctx, func(s snapshot) error {
		var reached parkedReach
		list, err := collect(ctx, s, "ParkedPage", func(row pgx.CollectableRow, v *ParkedRow) error {
			return v.scan(row, &reached)
		}, f.Dead, f.Consumer, f.Source, f.Topic, f.Type, f.Subject, f.Error, at, sequence, id, key[3], key[4], f.Limit+1, look)
		if err != nil {
			return err
		}
		if len(list) == 1 && list[0].EventID == uuid.Nil { // the row that says how far it went
			list = nil
		}
		p.Events, p.Next = page(list, int64(f.Limit), func(v ParkedRow) Cursor {
			return parkedCursor(v.At, v.Sequence, v.EventID.String(), v.Consumer, v.Source)
		})
		if p.Next == "" && reached.scanned == look {
			p.ScannedTo = *reached.at
			p.Next = parkedCursor(*reached.at, *reached.sequence, *reached.id, *reached.consumer, *reached.source)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", err)
	}
	return p, nil
}

// parkedReach is how many rows were looked at for a page, and the last of them.
type parkedReach struct {
	scanned              int
	at                   *time.Time
	sequence             *int64
	id, consumer, source *string
}

func parkedCursor(at time.Time, sequence int64, id, consumer, source string) Cursor {
	return newCursor(at.UTC().Format(time.RFC3339Nano), strconv.FormatInt(sequence, 10), id, consumer, source)
}

func (v *ParkedRow) scan(row pgx.CollectableRow, r *parkedReach) error {
	var consumer, id, reason, lastError, source, topic, eventType, subject *string
	var attempts, size *int
	var next, at, recorded *time.Time
	var sequence *int64
	err := row.Scan(&consumer, &id, &reason, &attempts, &next, &lastError, &at, &source, &topic, &eventType, &subject, &sequence, &recorded, &size,
		&r.scanned, &r.at, &r.sequence, &r.id, &r.consumer, &r.source)
	if err != nil || id == nil {
		return err
	}
	*v = ParkedRow{
		Consumer: *consumer, Source: *source, Topic: *topic, Type: *eventType, Subject: *subject, Sequence: *sequence, RecordedAt: *recorded, Size: *size,
		Reason: HandlingState(*reason), ParkedStatus: ParkedStatus{At: *at, Attempts: *attempts, NextAt: orZero(next), LastError: *lastError},
	}
	v.EventID, err = uuid.Parse(*id)
	return err
}

// DeadLetterGroup are the dead letters of a consumer and a type whose errors differ only in numbers and ids.
type DeadLetterGroup struct {
	Consumer string    `json:"consumer"`
	Topic    string    `json:"topic"`
	Type     string    `json:"type"`
	Error    string    `json:"error"` // its first 200 characters, with … for each number and id
	Letters  int64     `json:"letters"`
	Oldest   time.Time `json:"oldest"` // when it was parked
	Newest   time.Time `json:"newest"`
	Example  uuid.UUID `json:"example"` // the id of one of the events
}

// DeadLetterGroups groups the dead letters, the largest group first; up to 200 groups of up to MaxGrouped letters.
func (o *Operator) DeadLetterGroups(ctx context.Context) (list []DeadLetterGroup, err error) {
	err = o.read(ctx, func(s snapshot) error {
		list, err = collect(ctx, s, "DeadLetterGroups", func(row pgx.CollectableRow, g *DeadLetterGroup) error {
			return row.Scan(&g.Consumer, &g.Topic, &g.Type, &g.Error, &g.Letters, &g.Oldest, &g.Newest, &g.Example)
		}, MaxGrouped, maxGroups)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("group dead letters: %w", err)
	}
	return list, nil
}

// ParkedStream is a stream of which a consumer has parked events: the first of them holds the others.
type ParkedStream struct {
	Consumer string        `json:"consumer"`
	Source   string        `json:"source"`
	Topic    string        `json:"topic"`
	Subject  string        `json:"subject"`
	EventID  uuid.UUID     `json:"event_id"` // of the first parked event
	Type     string        `json:"type"`
	Reason   HandlingState `json:"reason"`
	ParkedStatus
	Held int64 `json:"held"` // how many events wait behind it; it ends at MaxBehind
}

// ParkedStreamFilter selects a page of parked streams.
type ParkedStreamFilter struct {
	Consumer string // empty: of all consumers
	After    Cursor // of the page before
	Limit    int    // the maximum number of streams. Defaults to 50.
}

// ParkedStreamPage is a page of parked streams.
type ParkedStreamPage struct {
	Streams []ParkedStream `json:"streams"` // by consumer, source, topic and subject
	Next    Cursor         `json:"next,omitempty"`
}

// ParkedStreams lists the streams that are parked, with what holds each and how many events wait.
func (o *Operator) ParkedStreams(ctx context.Context, f ParkedStreamFilter) (*ParkedStreamPage, error) {
	if err := checkLimit("ParkedStreamFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	key, err := f.After.key("ParkedStreamFilter", f.Consumer, "", "", "")
	if err != nil {
		return nil, err
	}
	p := &ParkedStreamPage{}
	err = o.read(ctx, func(s snapshot) error {
		list, err := collect(ctx, s, "ParkedStreams", func(row pgx.CollectableRow, v *ParkedStream) error {
			var next *time.Time
			err := row.Scan(&v.Consumer, &v.Source, &v.Topic, &v.Subject, &v.EventID, &v.Type, &v.Reason, &v.Attempts, &next, &v.LastError, &v.ParkedStatus.At, &v.Held)
			v.NextAt = orZero(next)
			return err
		}, key[0], key[1], key[2], key[3], f.Limit+1, MaxBehind)
		if err != nil {
			return err
		}
		if f.Consumer != "" {
			for i, v := range list { // they follow each other
				if v.Consumer != f.Consumer {
					list = list[:i]
					break
				}
			}
		}
		p.Streams, p.Next = page(list, int64(f.Limit), func(v ParkedStream) Cursor { return newCursor(v.Consumer, v.Source, v.Topic, v.Subject) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list parked streams: %w", err)
	}
	return p, nil
}
