package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// Position is how far a consumer is in a stream, and the first event that is parked there.
type Position struct {
	Last    int64   // the sequence of the last event handled; 0: none
	Skipped []int64 // pairs of sequences: the events between the two of a pair, exclusively, were passed over

	// The parked event with the lowest sequence; Head 0: none is parked.
	Head, HeadPrevious int64
	HeadID             string
}

// PassedOver reports whether the stream has gone past a sequence without handling its event.
func (p Position) PassedOver(sequence int64) bool {
	for i := 0; i+1 < len(p.Skipped); i += 2 {
		if p.Skipped[i] < sequence && sequence < p.Skipped[i+1] {
			return true
		}
	}
	return false
}

// MaxSkipped is the maximum number of pairs in Skipped. Beyond it the two oldest become one: an event between them that was
// handled and is delivered again becomes a dead letter then, not a duplicate.
const MaxSkipped = 1000

// Skip returns the pairs of Skipped with one more.
func (p Position) Skip(after, before int64) []int64 {
	pairs := append(slices.Clone(p.Skipped), after, before)
	if len(pairs) > 2*MaxSkipped {
		pairs = slices.Delete(pairs, 1, 3)
	}
	return pairs
}

// LockedStream is a stream whose position the transaction has locked.
type LockedStream struct {
	rocketflow.Stream
	Position
	First int64 // Last when it was locked
	// Failed is how often the handler had failed with the event that moved the position.
	Failed int
}

// SetHead notes that an event of the stream is parked, which becomes the head if it is the first.
func (s *LockedStream) SetHead(e rocketflow.Event) {
	if s.Head == 0 || e.Sequence < s.Head {
		s.Head, s.HeadPrevious, s.HeadID = e.Sequence, e.Previous, e.ID.String()
	}
}

// Lock locks the positions of streams, reads their heads, and runs the statements of more in the same round trip. A stream
// that has no row gets one first, so that two processes can't both begin it.
func (c Consumer) Lock(ctx context.Context, tx pgx.Tx, streams []*LockedStream, more *pgx.Batch) error {
	var q pgx.Batch
	locked := make([]bool, len(streams))
	if len(streams) > 0 {
		c.queueLock(&q, streams, locked)
	}
	q.QueuedQueries = append(q.QueuedQueries, more.QueuedQueries...)
	if q.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("lock positions: %w", err)
	}
	// A row that another process has made meanwhile isn't locked by the claim, and retention may delete it before it is: then it is
	// claimed again. Without the lock two processes could handle the stream's first event.
	for {
		streams, locked = missing(streams, locked)
		if len(streams) == 0 {
			return nil
		}
		q = pgx.Batch{}
		sources, topics, subjects := streamColumns(streams)
		q.Queue(c.sql.Get("ClaimPositions"), c.name, sources, topics, subjects)
		c.queueLock(&q, streams, locked)
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("claim positions: %w", err)
		}
	}
}

// missing returns the streams that are not locked, and a slice to note in which of them are.
func missing(streams []*LockedStream, locked []bool) (rest []*LockedStream, none []bool) {
	for i, ok := range locked {
		if !ok {
			rest = append(rest, streams[i])
		}
	}
	return rest, make([]bool, len(rest))
}

// queueLock locks the positions that there are, and notes in locked which.
func (c Consumer) queueLock(q *pgx.Batch, streams []*LockedStream, locked []bool) {
	sources, topics, subjects := streamColumns(streams)
	q.Queue(c.sql.Get("LockPositions"), c.name, sources, topics, subjects).Query(func(rows pgx.Rows) error {
		var n int64
		var at Position
		_, err := pgx.ForEachRow(rows, []any{&n, &at.Last, &at.Skipped}, func() error {
			streams[n-1].Position, streams[n-1].First, locked[n-1] = at, at.Last, true
			at = Position{}
			return nil
		})
		return err
	})
	q.Queue(c.sql.Get("ParkedHeads"), c.name, sources, topics, subjects).Query(func(rows pgx.Rows) error {
		var n, head, previous int64
		var id string
		_, err := pgx.ForEachRow(rows, []any{&n, &head, &previous, &id}, func() error {
			p := &streams[n-1].Position
			p.Head, p.HeadPrevious, p.HeadID = head, previous, id
			return nil
		})
		return err
	})
}

// errNotLocked rolls a transaction back that has handled an event whose position would not be written: it would be handled again.
var errNotLocked = errors.New("the position of a stream that was handled could not be written: its row is gone or has moved on although the transaction locked it")

// QueueAdvance writes the positions of streams, and makes the next parked events in them due.
func (c Consumer) QueueAdvance(q *pgx.Batch, moved []*LockedStream) {
	sources, topics, subjects := streamColumns(moved)
	last := make([]int64, len(moved))
	failed := failures{}
	var parked []*LockedStream
	for i, m := range moved {
		last[i] = m.Last
		failed.add(m.Failed)
		if m.Head != 0 {
			parked = append(parked, m)
		}
	}
	q.Queue(c.sql.Get("AdvancePositions"), c.name, sources, topics, subjects, last, failed.column()).Exec(func(tag pgconn.CommandTag) error {
		if int(tag.RowsAffected()) != len(moved) {
			return errNotLocked
		}
		return nil
	})
	if len(parked) > 0 {
		c.QueueWake(q, parked)
	}
}

// QueueWake makes the next parked events of streams due.
func (c Consumer) QueueWake(q *pgx.Batch, streams []*LockedStream) {
	sources, topics, subjects := streamColumns(streams)
	last := make([]int64, len(streams))
	for i, m := range streams {
		last[i] = m.Last
	}
	q.Queue(c.sql.Get("Wake"), c.name, sources, topics, subjects, last)
}

// QueueSkip records that a stream passes over the events between two sequences.
func (c Consumer) QueueSkip(q *pgx.Batch, of *LockedStream, after, before int64) {
	of.Skipped = of.Skip(after, before)
	q.Queue(c.sql.Get("Skip"), c.name, of.Source, of.Topic, of.Subject, of.Skipped)
}

// QueueDeadUnorderedBetween makes dead letters without order of the parked events between two sequences of a stream,
// exclusively, and calls each for every one of them.
func (c Consumer) QueueDeadUnorderedBetween(q *pgx.Batch, of rocketflow.Stream, after, before int64, err error, each func(id uuid.UUID, eventType string)) {
	q.Queue(c.sql.Get("DeadUnorderedBetween"), c.name, of.Source, of.Topic, of.Subject, after, before, ErrorText(err)).Query(func(rows pgx.Rows) error {
		var id, eventType string
		_, err := pgx.ForEachRow(rows, []any{&id, &eventType}, func() error { each(uuid.MustParse(id), eventType); return nil })
		return err
	})
}

// ResetPosition sets how far the consumer is in a stream and makes the next parked event there due. It returns how far it was
// before, and false if the consumer has no position in the stream.
func (c Consumer) ResetPosition(ctx context.Context, tx pgx.Tx, s rocketflow.Stream, sequence int64) (before int64, known bool, err error) {
	err = tx.QueryRow(ctx, c.sql.Get("ResetPosition"), c.name, s.Source, s.Topic, s.Subject, sequence).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	var q pgx.Batch
	c.QueueWake(&q, []*LockedStream{{Stream: s, Position: Position{Last: sequence}}})
	return before, true, tx.SendBatch(ctx, &q).Close()
}

// streamColumns returns the streams' keys as three columns.
func streamColumns(streams []*LockedStream) (sources, topics, subjects []string) {
	for _, s := range streams {
		sources = append(sources, s.Source)
		topics = append(topics, s.Topic)
		subjects = append(subjects, s.Subject)
	}
	return sources, topics, subjects
}
