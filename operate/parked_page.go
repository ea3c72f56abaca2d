package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/inbox"
)

//go:embed parked_page.sql
var parkedPageSQL string

const (
	// MaxGrouped is how many dead letters DeadLetterGroups looks at, and how many parked events ParkedGroups.
	MaxGrouped = 5_000
	// MaxBehind is the highest value of ParkedStream.Behind, which means that many or more.
	MaxBehind = 1000

	maxGroups = 200
)

// ParkedPageFilter selects dead letters or other parked events. An event is selected if it matches all fields that are set.
type ParkedPageFilter struct {
	Dead                                   bool // dead letters; false: parked events that aren't
	Consumer, Source, Topic, Type, Subject string
	EventID                                uuid.UUID
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
	after, err := f.place()
	if err != nil {
		return nil, err
	}
	filter := inbox.Filter{Consumer: f.Consumer, EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject, Error: f.Error, Limit: f.Limit}
	p := &ParkedPage{}
	err = o.read(ctx, func(s snapshot) error {
		page, err := o.inbox.Page(ctx, s.tx, f.Dead, filter, after)
		if err != nil {
			return err
		}
		if page.Next.EventID != "" {
			p.Next = parkedCursor(page.Next)
		}
		if page.Partial {
			p.ScannedTo = page.Next.At
		}
		keys := make([]inbox.ParkedKey, len(page.Places))
		for i, place := range page.Places {
			keys[i] = place.ParkedKey
		}
		records, err := o.inbox.Records(ctx, s.tx, keys, false)
		for _, r := range records {
			p.Events = append(p.Events, parkedRow(r))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", err)
	}
	return p, nil
}

// place returns where the page begins.
func (f ParkedPageFilter) place() (p inbox.Place, err error) {
	if f.After == "" {
		return p, nil
	}
	key, err := f.After.key("ParkedPageFilter", "", "", "", "", "")
	if err != nil {
		return p, err
	}
	at, errAt := time.Parse(time.RFC3339Nano, key[0])
	sequence, errSequence := strconv.ParseInt(key[1], 10, 64)
	id, errID := uuid.Parse(key[2])
	if errors.Join(errAt, errSequence, errID) != nil {
		return p, cursorError("ParkedPageFilter")
	}
	return inbox.Place{ParkedKey: inbox.ParkedKey{Consumer: key[3], Source: key[4], EventID: id.String()}, At: at, Sequence: sequence}, nil
}

func parkedCursor(p inbox.Place) Cursor {
	return newCursor(p.At.UTC().Format(time.RFC3339Nano), strconv.FormatInt(p.Sequence, 10), p.EventID, p.Consumer, p.Source)
}

func parkedRow(r *inbox.Record) ParkedRow {
	e := r.Event
	return ParkedRow{
		Consumer: r.Consumer, EventID: e.ID, Source: e.Source, Topic: e.Topic, Type: e.Type, Subject: e.Subject, Sequence: e.Sequence, RecordedAt: e.Time, Size: r.Size,
		Reason: HandlingState(r.Reason), ParkedStatus: ParkedStatus{At: r.ParkedAt, Attempts: r.Attempts, NextAt: r.NextAt, LastError: r.LastError},
	}
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

// ParkedGroup are the parked events of a consumer and a type that are parked for the same reason, and whose errors differ only in numbers
// and ids.
type ParkedGroup struct {
	Consumer string        `json:"consumer"`
	Topic    string        `json:"topic"`
	Type     string        `json:"type"`
	Reason   HandlingState `json:"reason"`
	Error    string        `json:"error,omitempty"` // as DeadLetterGroup.Error; empty: no attempt has failed
	Events   int64         `json:"events"`
	Oldest   time.Time     `json:"oldest"` // when it was parked
	Newest   time.Time     `json:"newest"`
	Example  uuid.UUID     `json:"example"` // the id of one of the events
}

// ParkedGroups groups the parked events that are no dead letters, the largest group first; up to 200 groups of up to MaxGrouped events.
func (o *Operator) ParkedGroups(ctx context.Context) (list []ParkedGroup, err error) {
	err = o.read(ctx, func(s snapshot) error {
		list, err = collect(ctx, s, "ParkedGroups", func(row pgx.CollectableRow, g *ParkedGroup) error {
			return row.Scan(&g.Consumer, &g.Topic, &g.Type, &g.Reason, &g.Error, &g.Events, &g.Oldest, &g.Newest, &g.Example)
		}, MaxGrouped, maxGroups)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("group parked events: %w", err)
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
		}, key[0], key[1], key[2], key[3], f.Limit+1, MaxBehind, f.Consumer)
		if err != nil {
			return err
		}
		p.Streams, p.Next = page(list, int64(f.Limit), func(v ParkedStream) Cursor { return newCursor(v.Consumer, v.Source, v.Topic, v.Subject) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list parked streams: %w", err)
	}
	return p, nil
}
