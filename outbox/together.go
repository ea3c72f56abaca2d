package outbox

import (
	"context"
	"errors"
	"sync"
)

// together makes one call of many: what gathers while a call is under way goes into the next, so that many callers hold
// one connection and no caller waits for company.
type together[K, V any] struct {
	run func(ctx context.Context, keys []K) ([]V, error) // a result for each key, in order
	max int

	mu      sync.Mutex
	busy    bool
	waiting []*joiner[K, V]
}

type joiner[K, V any] struct {
	key   K
	value V
	err   error
	lead  bool          // it is this one's turn to call
	turn  chan struct{} // closed when there is a result, or the turn to call
}

var errAbandoned = errors.New("whoever asked for all gave up")

// do calls run with key among others. It waits for at most two calls, each bounded by its caller's ctx.
func (t *together[K, V]) do(ctx context.Context, key K) (V, error) {
	me := &joiner[K, V]{key: key, turn: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, me)
	if t.busy {
		t.mu.Unlock()
		<-me.turn
		if !me.lead {
			return me.value, me.err
		}
		t.mu.Lock()
	}
	t.busy = true
	n := min(len(t.waiting), t.max)
	batch := t.waiting[:n:n]
	t.waiting = t.waiting[n:]
	t.mu.Unlock()

	err := errAbandoned // what the others get should run panic
	var values []V
	defer func() {
		for i, j := range batch {
			if j.err = err; err == nil {
				j.value = values[i]
			}
			if j != me {
				close(j.turn)
			}
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.waiting) == 0 {
			t.busy = false
			return
		}
		next := t.waiting[0]
		next.lead = true
		close(next.turn)
	}()
	keys := make([]K, n)
	for i, j := range batch {
		keys[i] = j.key
	}
	values, err = t.run(ctx, keys)
	for i, j := range batch {
		if j == me {
			if err != nil {
				return me.value, err
			}
			return values[i], nil
		}
	}
	panic("together: the leader is not in its own batch")
}
