package saga

import (
	"context"
	"fmt"
	"sync"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/migrations"
)

// expiry is the goroutine of a started engine.
type expiry struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil while stopped
	done   chan struct{}
}

// expireBatch is how many sagas one statement deletes.
const expireBatch = 500

// Start verifies the schema (rocketflow.ErrNotMigrated) and begins to delete what finished longer ago than the retention.
// Events are handled whether or not the engine is
// started: that is the router's. ctx bounds the start only. Starting a started engine does nothing.
func (e *Engine) Start(ctx context.Context) error {
	x := &e.expiry
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancel != nil {
		return nil
	}
	if err := migrations.Check(ctx, e.cfg.Pool, e.cfg.Schema); err != nil {
		return fmt.Errorf("start sagas: %w", err)
	}
	if e.cfg.Retention < 0 {
		return nil
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.expireLoop(work)
	}()
	x.cancel, x.done = cancel, done
	return nil
}

// Stop ends what Start began. Stopping a stopped engine does nothing.
func (e *Engine) Stop(context.Context) error {
	x := &e.expiry
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancel == nil {
		return nil
	}
	x.cancel() // ends the statement that runs, too
	<-x.done
	x.cancel = nil
	return nil
}

func (e *Engine) expireLoop(ctx context.Context) {
	for {
		moved := clock.Moved(e.cfg.Clock)
		n, err := e.expire(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.cfg.Logger.Warn("saga retention", "error", err)
		case n > 0 && e.cfg.Listener.Expired != nil:
			e.cfg.Listener.Expired(n)
		}
		if n == expireBatch {
			continue
		}
		next, giveUp := e.cfg.Clock.After(e.cfg.ExpireInterval)
		select {
		case <-ctx.Done():
		case <-moved:
		case <-next:
		}
		giveUp()
	}
}

func (e *Engine) expire(ctx context.Context) (n int, err error) {
	if err := e.cfg.Pool.QueryRow(ctx, e.sql.Get("Expire"), e.cfg.Retention, expireBatch).Scan(&n); err != nil {
		return 0, fmt.Errorf("delete finished sagas: %w", err)
	}
	return n, nil
}
