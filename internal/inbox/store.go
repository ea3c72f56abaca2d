package inbox

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/stored"
)

//go:embed queries.sql
var queriesFile string

// ReadCommitted is the isolation level that the locks require: see the package comment.
var ReadCommitted = lazytx.ReadCommitted

// DB runs statements. lazytx.DB and pgx.Tx implement it.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Store runs the statements that concern all consumers of a schema.
type Store struct{ sql queries.Set }

// New returns the Store of a schema.
func New(schema string) Store { return Store{queries.Parse(queriesFile, schema)} }

// Consumer returns the Consumer with a name.
func (s Store) Consumer(name string) Consumer { return Consumer{s.sql, name} }

// Consumer runs the statements for one consumer of a schema.
type Consumer struct {
	sql  queries.Set
	name string
}

// Key identifies an event.
type Key struct {
	Source string // as stored in the tables, see CleanKey
	ID     uuid.UUID
}

// KeyOf returns the key of an event.
func KeyOf(e rocketflow.Event) Key { return Key{CleanKey(e.Source), e.ID} }

// Entry is the row of an event in the inbox.
type Entry struct {
	Fresh  bool   // this transaction has inserted it
	Digest *int64 // of the event's content; nil if that is unknown
}

// UsesInbox reports whether an event is recorded in the inbox. An ordered event is recorded by its stream's position, and the
// event of a timeout by the timeout's row, which its firing deletes.
func UsesInbox(e rocketflow.Event) bool { return !e.Ordered() && e.TimeoutName == "" }

// failures are how often handlers have failed with each of some events.
type failures struct {
	list []*int
	any  bool
}

func (f *failures) add(n int) {
	if n == 0 {
		f.list = append(f.list, nil)
		return
	}
	f.list, f.any = append(f.list, &n), true
}

// column returns them as a column in which null is none; nil if all are null.
func (f *failures) column() []*int {
	if !f.any {
		return nil
	}
	return f.list
}

// Past is what happened to an event while it was parked.
type Past struct {
	Edited bool // an operator has changed its content
	Failed int  // how often its handler has failed
}

// QueueInsertEntries inserts events into the inbox, if they aren't there, and writes their rows to entries. past is of events that were
// parked. Of those that were edited no digest is recorded, as another copy has the content from before.
func (c Consumer) QueueInsertEntries(q *pgx.Batch, events []rocketflow.Event, past map[Key]Past, entries map[Key]Entry) {
	ids, sources := keyColumns(events)
	digests := make([]int64, len(events))
	failed := failures{}
	for i, e := range events {
		p := past[KeyOf(e)]
		if !p.Edited {
			digests[i] = stored.Digest(e)
		}
		failed.add(p.Failed)
	}
	q.Queue(c.sql.Get("InsertInbox"), c.name, ids, sources, digests, failed.column()).Query(func(rows pgx.Rows) error {
		var id, source string
		var found Entry
		_, err := pgx.ForEachRow(rows, []any{&id, &source, &found.Fresh, &found.Digest}, func() error {
			k := Key{source, uuid.MustParse(id)}
			if was, ok := entries[k]; !ok || !was.Fresh {
				entries[k] = found
			}
			found = Entry{}
			return nil
		})
		return err
	})
}

// QueueEntriesOf reads the inbox's rows of events and writes them to entries. It inserts no row.
func (c Consumer) QueueEntriesOf(q *pgx.Batch, events []rocketflow.Event, entries map[Key]Entry) {
	ids, sources := keyColumns(events)
	q.Queue(c.sql.Get("FindInbox"), c.name, ids, sources).Query(func(rows pgx.Rows) error {
		var id, source string
		var found Entry
		_, err := pgx.ForEachRow(rows, []any{&id, &source, &found.Digest}, func() error {
			entries[Key{source, uuid.MustParse(id)}] = found
			found = Entry{}
			return nil
		})
		return err
	})
}

// QueueDeleteEntries deletes the rows of events that this transaction has inserted.
func (c Consumer) QueueDeleteEntries(q *pgx.Batch, events []rocketflow.Event) {
	ids, sources := keyColumns(events)
	q.Queue(c.sql.Get("DeleteInbox"), c.name, ids, sources)
}

// QueueNow reads Postgres' clock.
func (s Store) QueueNow(q *pgx.Batch, now *time.Time) {
	q.Queue(s.sql.Get("Now")).QueryRow(func(row pgx.Row) error { return row.Scan(now) })
}

// QueueNow reads Postgres' clock.
func (c Consumer) QueueNow(q *pgx.Batch, now *time.Time) { Store{c.sql}.QueueNow(q, now) }

// Now reads Postgres' clock.
func (s Store) Now(ctx context.Context, db DB) (now time.Time, err error) {
	if err := db.QueryRow(ctx, s.sql.Get("Now")).Scan(&now); err != nil {
		return now, fmt.Errorf("read Postgres' clock: %w", err)
	}
	return now, nil
}

// keyColumns returns the events' ids and sources as two columns.
func keyColumns(events []rocketflow.Event) (ids, sources []string) {
	for _, e := range events {
		k := KeyOf(e)
		ids = append(ids, k.ID.String())
		sources = append(sources, k.Source)
	}
	return ids, sources
}

// seconds returns a delay as a parameter of a statement: null stands for UntilWoken.
func seconds(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}
