package inbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxScan is how many rows of each consumer are looked at for one page of which not all rows match.
const maxScan = 5000

// Filter selects parked events. Its fields must all match; an empty one matches any.
type Filter struct {
	Consumer                     string
	EventID                      uuid.UUID
	Source, Topic, Type, Subject string
	Error                        string // a kind of errors, as operate.DeadLetterGroup has it
	Limit                        int    // the maximum number; 0 or less: no limit
}

// matchesAll reports whether the filter selects all events that are read by an index.
func (f Filter) matchesAll() bool { return f.Source+f.Topic+f.Type+f.Subject+f.Error == "" }

// ParkedKey identifies a parked event of a schema.
type ParkedKey struct{ Consumer, Source, EventID string }

// Place is the place of a parked event in the list of all, the longest parked first. The zero Place is before all.
type Place struct {
	ParkedKey
	At       time.Time // when it was parked
	Sequence int64
}

// Page is a page of the list of parked events.
type Page struct {
	Places []Place
	Next   Place // after which the next page begins. Its EventID is empty if there is none.
	// Partial is true if the page is short because enough rows were looked at for it: Next is the last of them.
	Partial bool
}

// Page returns the next dead letters (dead) or other parked events after a place that match f: at most f.Limit of them, and 5,000. It looks at
// up to 5,000 rows of each consumer.
func (s Store) Page(ctx context.Context, db DB, dead bool, f Filter, after Place) (p Page, err error) {
	if f.Limit <= 0 || f.Limit > maxScan {
		f.Limit = maxScan
	}
	look := f.Limit + 1
	if !f.matchesAll() {
		look = max(look, maxScan)
	}
	var at, id any // null: from the beginning, and any
	if !after.At.IsZero() {
		at = after.At
	} else {
		after.EventID = uuid.Nil.String()
	}
	if f.EventID != uuid.Nil {
		id = f.EventID.String()
	}
	rows, err := db.Query(ctx, s.sql.Get("ParkedPage"), dead, f.Consumer, id, f.Source, f.Topic, f.Type, f.Subject, f.Error,
		at, after.Sequence, after.EventID, after.Consumer, after.Source, int64(f.Limit)+1, int64(look))
	if err != nil {
		return p, fmt.Errorf("list parked events: %w", err)
	}
	var found, reached place
	var scanned int
	_, err = pgx.ForEachRow(rows, append(append(found.columns(), &scanned), reached.columns()...), func() error {
		if found.event != nil {
			p.Places = append(p.Places, found.place())
		}
		return nil
	})
	switch {
	case err != nil:
		return p, fmt.Errorf("list parked events: %w", err)
	case len(p.Places) > f.Limit:
		p.Places = p.Places[:f.Limit]
		p.Next = p.Places[f.Limit-1]
	case scanned == look:
		p.Next, p.Partial = reached.place(), true
	}
	return p, nil
}

// place is a Place that may be null.
type place struct {
	at                      *time.Time
	sequence                *int64
	event, consumer, source *string
}

func (p *place) columns() []any { return []any{&p.at, &p.sequence, &p.event, &p.consumer, &p.source} }

func (p *place) place() Place {
	return Place{ParkedKey{*p.consumer, *p.source, *p.event}, *p.at, *p.sequence}
}

// Keys returns the keys of the dead letters (dead) or the other parked events that match f, the longest parked first. It reads them page by
// page: what is parked or settled meanwhile may be among them.
func (s Store) Keys(ctx context.Context, db DB, dead bool, f Filter) (keys []ParkedKey, err error) {
	limit := f.Limit
	after := Place{}
	for {
		if limit > 0 {
			f.Limit = limit - len(keys)
		}
		page, err := s.Page(ctx, db, dead, f, after)
		if err != nil {
			return nil, err
		}
		for _, place := range page.Places {
			keys = append(keys, place.ParkedKey)
		}
		if after = page.Next; after.EventID == "" || limit > 0 && len(keys) >= limit {
			return keys, nil
		}
	}
}

// recordsPage is how many parked events are read at once.
const recordsPage = 1000

// List returns what Keys finds, with bodies.
func (s Store) List(ctx context.Context, db DB, dead bool, f Filter) (list []*Record, err error) {
	keys, err := s.Keys(ctx, db, dead, f)
	if err != nil {
		return nil, err
	}
	for page := range slices.Chunk(keys, recordsPage) {
		records, err := s.Records(ctx, db, page, true)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if (r.Reason == DeadLetter) == dead { // it may have changed since
				list = append(list, r)
			}
		}
	}
	return list, nil
}

// Records returns the parked events with keys that are still parked, in the order of the keys, with their bodies or without.
func (s Store) Records(ctx context.Context, db DB, keys []ParkedKey, bodies bool) ([]*Record, error) {
	consumers, sources, ids := columnsOf(keys)
	rows, err := db.Query(ctx, s.sql.Get("ParkedRows"), consumers, sources, ids, bodies)
	if err == nil {
		var list []*Record
		if list, err = pgx.CollectRows(rows, scanRecord); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("read parked events: %w", err)
}

func columnsOf(keys []ParkedKey) (consumers, sources, ids []string) {
	consumers, sources, ids = make([]string, len(keys)), make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		consumers[i], sources[i], ids[i] = k.Consumer, k.Source, k.EventID
	}
	return consumers, sources, ids
}
