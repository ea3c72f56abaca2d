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

// ParkedPageFilter selects dead letters or waiting events. An event is selected if it matches all fields that are set.
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
}

// ParkedPage lists dead letters or parked events. It reads the table parked, which is small in a healthy service.
func (o *Operator) ParkedPage(ctx context.Context, f ParkedPageFilter) (*ParkedPage, error) {
	if err := checkLimit("ParkedPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	key, err := f.After.key("ParkedPageFilter", "-infinity", "", "-1", uuid.Nil.String())
	if err != nil {
		return nil, err
	}
	at, id := key[0], key[3]
	sequence, err := strconv.ParseInt(key[2], 10, 64)
	if _, e := uuid.Parse(id); err != nil || e != nil {
		return nil, cursorError("ParkedPageFilter")
	}
	if _, err := time.Parse(time.RFC3339Nano, at); err != nil && at != "-infinity" {
		return nil, cursorError("ParkedPageFilter")
	}
	p := &ParkedPage{}
	err = o.read(ctx, func(s snapshot) error {
		list, err := collect(ctx, s, "ParkedPage", func(row pgx.CollectableRow, v *ParkedRow) error {
			var next *time.Time
			err := row.Scan(&v.Consumer, &v.EventID, &v.Reason, &v.Attempts, &next, &v.LastError, &v.At,
				&v.Source, &v.Topic, &v.Type, &v.Subject, &v.Sequence, &v.RecordedAt, &v.Size)
			v.NextAt = orZero(next)
			return err
		}, f.Dead, f.Consumer, f.Source, f.Topic, f.Type, f.Subject, f.Error, at, key[1], sequence, id, f.Limit+1)
		p.Events, p.Next = page(list, int64(f.Limit), func(v ParkedRow) Cursor {
			return newCursor(v.At.UTC().Format(time.RFC3339Nano), v.Consumer, strconv.FormatInt(v.Sequence, 10), v.EventID.String())
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", err)
	}
	return p, nil
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
