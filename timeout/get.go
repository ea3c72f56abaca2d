package timeout

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Armed is an armed timeout as it is stored.
type Armed struct {
	// Key and Name identify the timeout.
	Key, Name string
	// Epoch is the id of the event that fires the timeout.
	Epoch uuid.UUID
	// DueAt is when the timeout fires at the earliest.
	DueAt time.Time
	// ArmedAt is when the timeout was armed or moved.
	ArmedAt time.Time
	// HandedOver reports whether the broker has confirmed that it holds a timer for this epoch. It is false for a timeout that
	// fires from Postgres.
	HandedOver bool
	// Sends is the number of times that the sweep sent the event because the timeout was due.
	Sends int
	// StuckAt is when the timeout was reported as stuck. It is zero if it was not.
	StuckAt time.Time
	// Event is the event that fires the timeout.
	Event rocketflow.Event
}

// Get returns the timeout (key, name), as q sees it, and false if it is not armed.
func (s *Scheduler) Get(ctx context.Context, q Querier, key, name string) (Armed, bool, error) {
	a := Armed{Key: key, Name: name}
	e := &a.Event
	var headers []byte
	var stuckAt *time.Time
	err := q.QueryRow(ctx, s.sql.Get("Get"), key, name).Scan(&a.Epoch, &a.DueAt, &a.ArmedAt, &a.HandedOver, &a.Sends, &stuckAt,
		&e.Source, &e.Topic, &e.Type, &e.Subject, &e.ContentType, &headers, &e.Body)
	if errors.Is(err, pgx.ErrNoRows) {
		return Armed{}, false, nil
	}
	if err == nil {
		err = stored.SetHeaders(e, headers)
	}
	if err != nil {
		return Armed{}, false, printable.Errorf("get timeout %s of %s: %w", name, key, err)
	}
	if stuckAt != nil {
		a.StuckAt = *stuckAt
	}
	e.ID, e.Time, e.TimeoutKey, e.TimeoutName = a.Epoch, a.ArmedAt, key, name
	return a, true, nil
}
