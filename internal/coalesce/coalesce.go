// Package coalesce merges concurrent calls for single keys into calls for many keys, such as queries for single rows into one
// query. Calls that arrive while one is running are merged into the next. So many callers use one connection, and no call is
// delayed to gather others.
package coalesce

import (
	"context"
	"errors"
	"sync"
)

// Coalescer merges calls. Create it with New. All methods are safe for concurrent use.
type Coalescer[K, V any] struct {
	call func(ctx context.Context, keys []K) ([]V, error)
	max  int

	mu      sync.Mutex
	busy    bool // a call is under way, or its caller has been chosen
	waiting []*request[K, V]
}

// request is one call of Do. Of the requests that share a call one makes it: the leader.
type request[K, V any] struct {
	key    K
	value  V
	err    error
	leader bool
	ready  chan struct{} // closed when the result is there, or when this request was chosen to lead
}

// ErrAborted is returned by a Do whose call was made by another goroutine and panicked.
var ErrAborted = errors.New("the call that was shared with others panicked")

// New returns a coalescer that passes at most limit keys to call. call returns a value for each key, in order.
func New[K, V any](limit int, call func(ctx context.Context, keys []K) ([]V, error)) *Coalescer[K, V] {
	return &Coalescer[K, V]{call: call, max: limit}
}

// Do returns the value of key from a call that it may share with others. It waits for at most two calls. A shared call has
// the context of one of its callers.
func (c *Coalescer[K, V]) Do(ctx context.Context, key K) (V, error) {
	own := &request[K, V]{key: key, ready: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, own)
	if c.busy {
		c.mu.Unlock()
		<-own.ready
		if !own.leader {
			return own.value, own.err
		}
		c.mu.Lock()
	}
	c.busy = true
	n := min(len(c.waiting), c.max)
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	c.mu.Unlock()

	err := ErrAborted // the error of the others if call panics
	var values []V
	defer func() {
		for i, r := range batch {
			if r.err = err; err == nil {
				r.value = values[i]
			}
			if r != own {
				close(r.ready)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.waiting) == 0 {
			c.busy = false
			return
		}
		next := c.waiting[0]
		next.leader = true
		close(next.ready)
	}()
	keys := make([]K, n)
	for i, r := range batch {
		keys[i] = r.key
	}
	values, err = c.call(ctx, keys)
	if err != nil {
		return own.value, err
	}
	for i, r := range batch {
		if r == own {
			return values[i], nil
		}
	}
	panic("coalesce: the leader is not in its own batch")
}
