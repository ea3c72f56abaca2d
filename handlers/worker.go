package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
)

const (
	// longestRest is how long the worker rests at most: another process may park, a person may retry.
	longestRest  = 3 * time.Second
	shortestRest = 20 * time.Millisecond
	// sweepEvery is how often it looks for followers that nobody woke.
	sweepEvery = time.Minute
	// leaseMargin is added to the handler's time for what a lane does before.
	leaseMargin = 30 * time.Second
)

// maxRetries is how many parked events may be with the lanes at a time.
func (c *consumer) maxRetries() int { return 4 * c.cfg.Lanes }

// work takes parked events that are due and deals them to the lanes, which run them between deliveries: what runs at
// a time, and the order within a stream, stay bounded by the lanes.
func (c *consumer) work(ctx context.Context) {
	var swept time.Time
	for {
		moved := clock.Moved(c.cfg.Clock)
		rest, err := c.deal(ctx)
		if now := c.now(); err == nil && now.Sub(swept) > sweepEvery {
			swept = now
			err = c.sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			rest = time.Second
			c.cfg.Logger.Warn("can't look for parked events", keyConsumer, c.name, keyError, err)
		}
		rested, giveUp := c.cfg.Clock.After(rest)
		select {
		case <-rested:
		case <-moved:
		case <-c.wake:
		case <-c.resting:
			giveUp()
			return
		case <-ctx.Done():
			giveUp()
			return
		}
		giveUp()
	}
}

// deal takes what is due and returns how long to rest then.
func (c *consumer) deal(ctx context.Context) (time.Duration, error) {
	free := c.maxRetries() - int(c.retries.Load())
	if free <= 0 {
		return longestRest, nil // a lane signals when it is done with one
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var due []parkedKey
	rest := longestRest
	var q pgx.Batch
	q.Queue(c.sql.Get("TakeDue"), c.name, free, (c.cfg.Timeout + leaseMargin).Seconds()).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var s rocketflow.Stream
		var sequence int64
		_, err := pgx.ForEachRow(rows, []any{&id, &s.Source, &s.Topic, &s.Subject, &sequence}, func() error {
			k := parkedKey{id: id}
			if sequence > 0 {
				k.stream = s
			}
			due = append(due, k)
			return nil
		})
		return err
	})
	q.Queue(c.sql.Get("NextDue"), c.name).QueryRow(func(row pgx.Row) error {
		var next float64
		err := row.Scan(&next)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		rest = min(rest, max(0, time.Duration(next*float64(time.Second)))+time.Millisecond)
		return err
	})
	if err := c.cfg.Pool.SendBatch(ctx, &q).Close(); err != nil {
		return 0, fmt.Errorf("take due events: %w", err)
	}
	for _, k := range due {
		c.retries.Add(1)
		l := c.laneOf(k.id[:])
		if k.stream != (rocketflow.Stream{}) {
			l = c.laneOf([]byte(k.stream.Subject))
		}
		l.in <- work{parked: k} // there is room: see newConsumer
	}
	if len(due) == 0 {
		rest = max(rest, shortestRest) // what is due is locked by another process
	}
	return rest, nil
}

func (c *consumer) sweep(ctx context.Context) error {
	tag, err := c.cfg.Pool.Exec(ctx, c.sql.Get("WakeStranded"), c.name)
	if err != nil {
		return fmt.Errorf("wake stranded events: %w", err)
	}
	if tag.RowsAffected() > 0 {
		c.cfg.Logger.Warn("woke parked events that nothing held", keyConsumer, c.name, "count", tag.RowsAffected())
		c.signal()
	}
	return nil
}
