package coalesce_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/rocketflow/rocketflow/internal/coalesce"
)

// calls records the keys of each call and lets a test hold the calls back.
type calls struct {
	mu     sync.Mutex
	keys   [][]int
	permit chan error // a call returns what it receives here
}

func (c *calls) double(_ context.Context, keys []int) ([]int, error) {
	c.mu.Lock()
	c.keys = append(c.keys, slices.Clone(keys))
	c.mu.Unlock()
	if err := <-c.permit; err != nil {
		return nil, err
	}
	values := make([]int, len(keys))
	for i, k := range keys {
		values[i] = 2 * k
	}
	return values, nil
}

func TestRequestsDuringACallShareTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		made := &calls{permit: make(chan error)}
		c := coalesce.New(3, made.double)
		var group sync.WaitGroup
		do := func(key int) {
			group.Go(func() {
				if v, err := c.Do(t.Context(), key); err != nil || v != 2*key {
					t.Errorf("key %d: value %d, error %v", key, v, err)
				}
			})
			synctest.Wait()
		}
		do(1)                          // calls at once, by itself
		for key := 2; key < 6; key++ { // wait for that call: three share the next, and one is left
			do(key)
		}
		for range 3 {
			made.permit <- nil
			synctest.Wait()
		}
		group.Wait()
		want := [][]int{{1}, {2, 3, 4}, {5}}
		if !slices.EqualFunc(made.keys, want, slices.Equal) {
			t.Errorf("calls with %v, want %v", made.keys, want)
		}
		group.Go(func() { made.permit <- nil })
		do(6) // the coalescer is idle again
		group.Wait()
	})
}

func TestAllWhoShareACallGetItsError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		made := &calls{permit: make(chan error)}
		c := coalesce.New(10, made.double)
		failure := errors.New("on purpose")
		var group sync.WaitGroup
		for key, want := range []error{nil, failure, failure} {
			group.Go(func() {
				if _, err := c.Do(t.Context(), key); !errors.Is(err, want) {
					t.Errorf("key %d: error %v, want %v", key, err, want)
				}
			})
			synctest.Wait()
		}
		made.permit <- nil
		made.permit <- failure
		group.Wait()
	})
}

func TestAPanicEndsNoOtherWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		permit := make(chan struct{})
		first := true
		c := coalesce.New(10, func(_ context.Context, keys []int) ([]int, error) {
			<-permit
			if len(keys) > 1 && first {
				first = false
				panic("on purpose")
			}
			return keys, nil
		})
		var group sync.WaitGroup
		group.Go(func() { _, _ = c.Do(t.Context(), 0) })
		synctest.Wait()
		group.Go(func() { // leads the second call
			defer func() {
				if recover() == nil {
					t.Error("the panic did not reach the caller that made the call")
				}
			}()
			_, _ = c.Do(t.Context(), 1)
		})
		synctest.Wait()
		group.Go(func() {
			if _, err := c.Do(t.Context(), 2); !errors.Is(err, coalesce.ErrAborted) {
				t.Errorf("error %v, want ErrAborted", err)
			}
		})
		synctest.Wait()
		permit <- struct{}{}
		permit <- struct{}{}
		group.Wait()
		group.Go(func() { permit <- struct{}{} })
		if v, err := c.Do(t.Context(), 3); err != nil || v != 3 {
			t.Errorf("after the panic: value %d, error %v", v, err)
		}
		group.Wait()
	})
}
