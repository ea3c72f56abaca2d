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
	Key, Name  string
	Epoch      uuid.UUID // the event's id
	DueAt      time.Time
	ArmedAt    time.Time
	HandedOver bool      // the broker holds a timer for it
	Sends      int       // how often the sweep sent the event because it is overdue
	StuckAt    time.Time // when it was reported as stuck; zero: it wasn't
	Event      rocketflow.Event
}

// Get reads a timeout, as far as q sees it. false: it is not armed.
func (s *Scheduler) Get(ctx context.Context, q Querier, key, name string) (Armed, bool, error) {
	a := Armed{Key: key, Name: name}
	e := &a.Event
	var headers []byte
	var stuck *time.Time
	err := q.QueryRow(ctx, s.sql.Get("Get"), key, name).Scan(&a.Epoch, &a.DueAt, &a.ArmedAt, &a.HandedOver, &a.Sends, &stuck,
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
	if stuck != nil {
		a.StuckAt = *stuck
	}
	e.ID, e.Time, e.TimeoutKey, e.TimeoutName = a.Epoch, a.ArmedAt, key, name
	return a, true, nil
}
