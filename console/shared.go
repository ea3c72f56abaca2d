package console

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// sharedFor is how long the result of a read is shown to other viewers.
const sharedFor = time.Second

// maxShared bounds how many results are kept.
const maxShared = 256

// shared keeps results of reads for a moment, so that many viewers of a page cost as much as one. Reads with the same key that
// run at the same time are one, also if it fails: a database that is away is not asked once for each viewer.
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
		if errors.Is(r.err, context.Canceled) { // that viewer has left
			return read(ctx, s, key, fn)
		}
		value, _ := r.value.(T) // a key belongs to one type
		return value, r.err
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

// forget has what was read before be read again: something has changed.
func (s *shared) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.byKey)
}

var errNoResult = errors.New("the read gave no result")

// unreadService is a service that a page of all services could not read.
type unreadService struct{ Service, Problem string }

// ofServices reads something of each service, at the same time. A page shows what it could read, by the service's name, and what it
// could not.
func ofServices[T any](q *request, what string, fn func(context.Context, *operate.Operator) (T, error)) (byService map[string]T, unread []unreadService) {
	ctx, cancel := context.WithTimeout(q.r.Context(), overviewTimeout)
	defer cancel()
	values, errs := make([]T, len(q.config.Services)), make([]error, len(q.config.Services))
	var reading sync.WaitGroup
	for i, s := range q.config.Services {
		reading.Go(func() {
			values[i], errs[i] = read(ctx, &q.reads, key(what, s.Name), func(ctx context.Context) (T, error) { return fn(ctx, s.Operator) })
		})
	}
	reading.Wait()
	byService = map[string]T{}
	for i, s := range q.config.Services {
		if err := errs[i]; err != nil {
			q.config.Logger.Warn("a page of the console could not read a service", "path", q.r.URL.Path, "service", s.Name, "error", err)
			unread = append(unread, unreadService{s.Name, err.Error()})
			continue
		}
		byService[s.Name] = values[i]
	}
	return byService, unread
}

// atOnce makes reads of one page at the same time, and returns the first error in their order.
func atOnce(reads ...func() error) error {
	errs := make([]error, len(reads))
	var reading sync.WaitGroup
	for i, fn := range reads {
		reading.Go(func() { errs[i] = fn() })
	}
	reading.Wait()
	return cmp.Or(errs...)
}
