package saga

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// Record is a saga with its history, as people look at it.
type Record struct {
	Instance[json.RawMessage]
	Transitions []Transition // oldest first; the first is the beginning
}

// Transition is one row of history.
type Transition struct {
	Revision  int64 // after it
	From      string
	To        string
	CauseType string    // the event's type; "saga.begin" for the beginning
	CauseID   uuid.UUID // the event's id; zero for what the application did itself
	At        time.Time
}

// History returns all sagas with this key, whatever their names, the oldest first. schema is that of rocketflow's tables.
// None is no error.
func History(ctx context.Context, pool interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, schema, key string) ([]Record, error) {
	sql := queries.Parse(sqlFile, schema)
	rows, err := pool.Query(ctx, sql.Get("ByKey"), key)
	if err != nil {
		return nil, printable.Errorf("read sagas of %s: %w", key, err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Record, err error) {
		var finished *time.Time
		err = row.Scan(&r.Name, &r.Key, &r.Version, &r.State, &r.Data, &r.Revision, &r.StartedAt, &r.ChangedAt, &finished)
		if finished != nil {
			r.FinishedAt = *finished
		}
		return r, err
	})
	if err != nil {
		return nil, printable.Errorf("read sagas of %s: %w", key, err)
	}
	byName := map[string]*Record{}
	for n := range records {
		byName[records[n].Name] = &records[n]
	}
	if rows, err = pool.Query(ctx, sql.Get("HistoryByKey"), key); err != nil {
		return nil, printable.Errorf("read history of %s: %w", key, err)
	}
	var (
		name    string
		t       Transition
		causeID *uuid.UUID
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &t.Revision, &t.From, &t.To, &t.CauseType, &causeID, &t.At}, func() error {
		t.CauseID = uuid.Nil
		if causeID != nil {
			t.CauseID = *causeID
		}
		if r := byName[name]; r != nil { // one begun since the first query has none
			r.Transitions = append(r.Transitions, t)
		}
		return nil
	})
	if err != nil {
		return nil, printable.Errorf("read history of %s: %w", key, err)
	}
	return records, nil
}
