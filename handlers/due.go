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
	// takenMargin is added to the handler's time for what a lane does before.
	takenMargin = 10 * time.Second
	// busyRecheck is when to look again at what is due behind a handler that takes long.
	busyRecheck = 5 * time.Second
)

// maxRetries is how many parked events may be with the lanes at a time.
func (c *consumer) maxRetries() int { return 4 * c.opts.Lanes }

// work takes parked events that are due and gives them to the lanes, which run them between deliveries: what runs at a
// time, and the order within a stream, stay bounded by the lanes.
func (c *consumer) work(ctx context.Context) {
	var swept time.Time
	for {
		moved := clock.Moved(c.cfg.Clock)
		rest, err := c.takeDue(ctx)
		if now := c.now(); err == nil && now.Sub(swept) > sweepEvery {
			swept = now
			err = c.wakeStranded(ctx)
		}
		switch {
		case err == nil:
			c.blind.end()
		case ctx.Err() == nil:
			rest = time.Second
			c.blind.begin(err, rest)
		}
		rested, giveUp := c.cfg.Clock.After(rest)
		select {
		case <-rested:
		case <-moved:
		case <-c.wake:
		case <-c.stopping:
			giveUp()
			return
		case <-ctx.Done():
			giveUp()
			return
		}
		giveUp()
	}
}

// takeDue takes what is due and returns how long to rest then.
func (c *consumer) takeDue(ctx context.Context) (time.Duration, error) {
	free := c.maxRetries() - int(c.retries.Load())
	if free <= 0 {
		return longestRest, nil // a lane signals when it is done with one
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var topics, types []string
	for r := range c.handlers {
		topics, types = append(topics, r.topic), append(types, r.eventType)
	}
	var due []parkedKey
	rest := longestRest
	var q pgx.Batch
	q.Queue(c.sql.Get("WakeUnhandled"), c.name, topics, types, int64(free))
	q.Queue(c.sql.Get("TakeDue"), c.name, int64(free), (c.opts.Timeout + unresponsiveAfter + takenMargin).Seconds()).Query(func(rows pgx.Rows) error {
		var id string
		var s rocketflow.Stream
		var sequence int64
		var timeout bool
		_, err := pgx.ForEachRow(rows, []any{&id, &s.Source, &s.Topic, &s.Subject, &sequence, &timeout}, func() error {
			k := parkedKey{source: s.Source, id: uuid.MustParse(id), keyed: sequence > 0 || timeout, subject: s.Subject}
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
	if err := c.giveDue(ctx, due); err != nil {
		return 0, err
	}
	if len(due) == 0 {
		rest = max(rest, shortestRest) // what is due is locked by another process
	}
	return rest, nil
}

// giveDue gives due events to the lanes, but for those whose group has been busy for long: they would take the place of
// others.
func (c *consumer) giveDue(ctx context.Context, due []parkedKey) error {
	var busy []parkedKey
	for _, k := range due {
		c.retries.Add(1)
		if !c.queue.addDue(k) {
			c.retries.Add(-1)
			busy = append(busy, k)
		}
	}
	after := busyRecheck
	if c.isStopping() {
		after = 0
	}
	return c.putBack(ctx, busy, after)
}

// putBack makes events that were taken and not run due again. Should it fail, they are due when the time for which they
// were taken is over.
func (c *consumer) putBack(ctx context.Context, due []parkedKey, after time.Duration) error {
	if len(due) == 0 {
		return nil
	}
	var sources, ids []string
	for _, k := range due {
		sources, ids = append(sources, cleanKey(k.source)), append(ids, k.id.String())
	}
	if _, err := c.cfg.Pool.Exec(ctx, c.sql.Get("PutBack"), c.name, sources, ids, after.Seconds()); err != nil {
		return fmt.Errorf("put due events back: %w", err)
	}
	return nil
}

func (c *consumer) wakeStranded(ctx context.Context) error {
	tag, err := c.cfg.Pool.Exec(ctx, c.sql.Get("WakeStranded"), c.name)
	if err != nil {
		return fmt.Errorf("wake stranded events: %w", err)
	}
	if tag.RowsAffected() > 0 {
		c.cfg.Logger.Warn("parked events whose predecessors were deleted by hand are due again", keyConsumer, c.name, "count", tag.RowsAffected())
		c.signal()
	}
	return nil
}
