package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// acker writes down what the broker has, in batches behind the hot path. An ack that is lost costs a double, which the
// consumers' inbox absorbs, so nobody waits for it.
type acker struct {
	outbox *Outbox
	ids    chan uuid.UUID
	done   chan struct{}
	cancel context.CancelFunc
}

const (
	ackBuffer = 8192
	ackBatch  = 1024
	// ackPace is the least time from one insert to the next: under load acks gather meanwhile, and Postgres has so much
	// less to do. After a pause the first goes at once.
	ackPace = 20 * time.Millisecond
)

func (o *Outbox) startAcks() *acker {
	ctx, cancel := context.WithCancel(context.Background())
	a := &acker{outbox: o, ids: make(chan uuid.UUID, ackBuffer), done: make(chan struct{}), cancel: cancel}
	go a.run(ctx)
	return a
}

// add never blocks: when Postgres is so slow that the buffer is full, the sweep's double is the lesser evil.
func (a *acker) add(id uuid.UUID) {
	select {
	case a.ids <- id:
	default:
	}
}

func (a *acker) run(ctx context.Context) {
	defer close(a.done)
	batch := make([]uuid.UUID, 0, ackBatch)
	var next time.Time // the next insert, at the earliest
	for {
		select {
		case id := <-a.ids:
			batch = append(batch[:0], id)
		case <-ctx.Done():
			if len(a.ids) == 0 {
				return
			}
			batch = batch[:0]
		}
		if wait := time.Until(next); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		next = time.Now().Add(ackPace)
		for len(batch) < ackBatch && len(a.ids) > 0 {
			batch = append(batch, <-a.ids)
		}
		// Not bound to ctx: stop waits for the last batch, and gives up by its own context.
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		a.write(write, batch)
		cancel()
	}
}

// write inserts acks.
func (a *acker) write(ctx context.Context, ids []uuid.UUID) {
	begin := time.Now()
	err := a.outbox.query(ctx, func(rows pgx.Rows) error { rows.Close(); return rows.Err() }, "Ack", texts(ids))
	if err != nil {
		a.outbox.log.Warn("acks not written; their events will be sent again", "events", len(ids), "error", err)
	}
	a.outbox.listener.Acked(AckedInfo{IDs: ids, Took: time.Since(begin), Err: err})
}

// query runs a statement by itself in one round trip, at read committed whatever the database's default is: above that it
// could fail because another process acks the same event.
func (o *Outbox) query(ctx context.Context, scan func(pgx.Rows) error, name string, args ...any) error {
	conn, err := o.config.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	t := newLazyTx(conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	b := &pgx.Batch{}
	b.Queue(o.queries.Get(name), args...).Query(scan)
	open, err := t.commitWith(ctx, b)
	if open {
		err = errors.Join(err, t.abort(ctx))
		t.end()
	}
	return err
}

// stop writes what is there and waits for it until ctx ends.
func (a *acker) stop(ctx context.Context) {
	a.cancel()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// texts is what parameters of type uuid[] are given as, for all of pgx's ways to run a query.
func texts(ids []uuid.UUID) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = id.String()
	}
	return all
}
