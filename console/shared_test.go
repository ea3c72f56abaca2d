package console

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// Viewers who wait for a read get its error, too. They read again, once, if its viewer has left.
func TestFailedReadsAreShared(t *testing.T) {
	t.Parallel()
	away := errors.New("the database is away")
	for name, c := range map[string]struct {
		first error
		reads int
		want  error
	}{
		"away": {away, 1, away},
		"left": {context.Canceled, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := shared{byKey: map[string]*sharedRead{}}
				answer := make(chan struct{})
				reads := 0 // one runs at a time
				fn := func(context.Context) (int, error) {
					if reads++; reads == 1 {
						<-answer
						return 0, c.first
					}
					return 7, nil
				}
				var viewers sync.WaitGroup
				viewers.Go(func() {
					if _, err := read(t.Context(), &s, "key", fn); !errors.Is(err, c.first) {
						t.Errorf("the first viewer: %v", err)
					}
				})
				synctest.Wait()
				for range 20 {
					viewers.Go(func() {
						if n, err := read(t.Context(), &s, "key", fn); !errors.Is(err, c.want) || err == nil && n != 7 {
							t.Errorf("%d, %v", n, err)
						}
					})
				}
				synctest.Wait()
				close(answer)
				viewers.Wait()
				if reads != c.reads {
					t.Errorf("%d reads", reads)
				}
			})
		})
	}
}
