package console

import (
	"context"
	"errors"
	"sync"
	"time"
)

// sharedFor is how long the result of a read is shown to other viewers.
const sharedFor = time.Second

// maxShared bounds how many results are kept.
const maxShared = 256

// shared keeps results of reads for a moment, so that many viewers of a page cost as much as one. Reads with the same key that
// run at the same time are one.
type shared struct {
	mu    sync.Mutex
	byKey map[string]*sharedRead
}

type sharedRead struct {
	done  chan struct{}
	value any
	err   error
	until time.Time // zero: it runs
}

// read returns the result of fn, or that of another viewer's fn with the same key of up to a second ago.
func read[T any](ctx context.Context, s *shared, key string, fn func(context.Context) (T, error)) (T, error) {
	var none T
	s.mu.Lock()
	now := time.Now()
	if r := s.byKey[key]; r != nil && (r.until.IsZero() || now.Before(r.until)) {
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return none, ctx.Err()
		case <-r.done:
		}
		if r.err == nil {
			value, _ := r.value.(T) // a key belongs to one type
			return value, nil
		}
		return fn(ctx) // the other one may have been given up
	}
	for k, r := range s.byKey {
		if !r.until.IsZero() && now.After(r.until) {
			delete(s.byKey, k)
		}
	}
	r := &sharedRead{done: make(chan struct{})}
	kept := len(s.byKey) < maxShared
	if kept {
		s.byKey[key] = r
	}
	s.mu.Unlock()
	value, err := none, errNoResult // of an fn that panics
	defer func() {
		s.mu.Lock()
		r.value, r.err, r.until = value, err, time.Now().Add(sharedFor)
		if err != nil && kept {
			delete(s.byKey, key)
		}
		s.mu.Unlock()
		close(r.done)
	}()
	value, err = fn(ctx)
	return value, err
}

var errNoResult = errors.New("the read gave no result")
