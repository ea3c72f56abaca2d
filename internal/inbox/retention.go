package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/expire"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// expireRows is how many rows a statement deletes.
const expireRows = 1000

// Retention returns the longest inbox retention of all consumers of the schema, but at least own.
func (s Store) Retention(ctx context.Context, db DB, own time.Duration) (time.Duration, error) {
	var longest float64
	if err := db.QueryRow(ctx, s.sql.Get("Retention"), own.Seconds()).Scan(&longest); err != nil {
		return 0, fmt.Errorf("read retention: %w", err)
	}
	return time.Duration(longest * float64(time.Second)), nil
}

// ExpireInbox deletes, in small transactions, the rows of the inbox's default partition that are older than a retention.
func (s Store) ExpireInbox(ctx context.Context, pool *pgxpool.Pool, retention time.Duration) error {
	for more := true; more; {
		rows, err := lazytx.On(pool).Exec(ctx, s.sql.Get("ExpireInbox"), retention.Seconds(), int64(expireRows))
		if err != nil {
			return fmt.Errorf("forget old events: %w", err)
		}
		more = rows.RowsAffected() == expireRows
	}
	return nil
}

// ExpireOriginals deletes, in small transactions, the contents of edited events that are older than a retention and not parked.
func (s Store) ExpireOriginals(ctx context.Context, pool *pgxpool.Pool, retention time.Duration) error {
	for more := true; more; {
		rows, err := lazytx.On(pool).Exec(ctx, s.sql.Get("ExpireOriginals"), retention.Seconds(), int64(expireRows))
		if err != nil {
			return fmt.Errorf("forget the original contents of edited events: %w", err)
		}
		more = rows.RowsAffected() == expireRows
	}
	return nil
}

// ExpirePositions deletes, in small transactions, the positions of a schema that are older than their consumers' retention
// and a margin.
func (s Store) ExpirePositions(ctx context.Context, pool *pgxpool.Pool, schema string, margin time.Duration) error {
	if _, err := expire.Walk(ctx, pool, schema, "position", s.sql.Get("ExpirePositions"), margin.Seconds()); err != nil {
		return fmt.Errorf("forget old positions: %w", err)
	}
	return nil
}
