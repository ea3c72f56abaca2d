//go:build !race

package orderclose_test

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketflowtest"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "play only the schedule of this seed")
	schedules = flag.Int("schedules", 0, "how many schedules to play (default 200)")
)

// Random schedules of customers, faults and outages, by seed, in several environments side by side: no promise is broken.
func TestSchedules(t *testing.T) {
	t.Parallel()
	const worlds = 4
	first, count := uint64(1), *schedules
	switch {
	case *oneSeed != 0:
		first, count = *oneSeed, 1
	case count == 0:
		count = 200
	}
	var next atomic.Uint64
	var failures atomic.Int32
	next.Store(first)
	began := time.Now()
	var running sync.WaitGroup
	for w := range min(worlds, count) {
		running.Go(func() { // not t.Parallel, which goes by the number of processors: the worlds mostly wait
			// A schedule that failed may have left things that trouble the next: that gets a new world.
			for again := true; again && failures.Load() < 5; {
				again = false // unless playAll returns
				t.Run(fmt.Sprint("world ", w+1), func(t *testing.T) { again = playAll(t, &next, first+uint64(count), &failures) })
			}
		})
	}
	running.Wait()
	t.Logf("%d schedules in %v", count, time.Since(began).Round(time.Millisecond))
}

// playAll runs schedules until there are no more, or one has failed.
func playAll(t *testing.T, next *atomic.Uint64, end uint64, failures *atomic.Int32) (again bool) {
	shop := openShop(t, rocketflowtest.Config{})
	for {
		seed := next.Add(1) - 1
		if seed >= end {
			return false
		}
		s := draw(seed)
		shop.log.take()
		began := time.Now()
		broken, summary := s.play(shop)
		if testing.Verbose() {
			t.Logf("seed %d: %v: %v", seed, time.Since(began).Round(time.Millisecond), summary)
		}
		if len(broken) > 0 {
			failures.Add(1)
			t.Errorf("seed %d: %s\nplay it again: go test ./test/orderclose -run Schedules -seed %d -count 10 -v\n%v%v%s",
				seed, strings.Join(broken, "\n\t"), seed, s, s.story(shop.Broker().Dump()), shop.log.take())
			return true
		}
	}
}
