//go:build !race

package acceptance

import (
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestTransactionsGoOnWhileTheBrokerIsPaused pauses the broker under load. Transactions go on, almost none waits for the
// broker, half messages are used again after the pause, and each event is handled once and in order, whichever path it took.
func TestTransactionsGoOnWhileTheBrokerIsPaused(t *testing.T) {
	// What the relay can't get rid of keeps transactions with Auto from trying half messages, so the breaker opens only if
	// three of those fail before. Pinned ones are all tried: it must.
	t.Run("auto", func(t *testing.T) { throughAPause(t, outbox.Auto) })
	t.Run("half messages", func(t *testing.T) { throughAPause(t, outbox.HalfMessages) })
}

var digits = regexp.MustCompile(`[0-9A-F]*[0-9][0-9A-F]*`)

func throughAPause(t *testing.T, path outbox.Path) {
	mq := testbroker.Start(t)
	s := setup(t, mq.NameServer())
	const halfTimeout, callers = 300 * time.Millisecond, 8
	var (
		mu      sync.Mutex
		changes []outbox.PathInfo
		opened  atomic.Bool        // the breaker is open
		opens   atomic.Int64       // how often it has opened
		inVain  atomic.Int64       // half messages
		reasons = map[string]int{} // how often each, without numbers
		halves  atomic.Int64
		relayed atomic.Int64
	)
	box := s.outbox(func(c *outbox.Config) {
		c.Path, c.HalfTimeout, c.MaxHalfMessages = path, halfTimeout, 3
		c.Listener = &outbox.Listener{
			PathChanged: func(i outbox.PathInfo) {
				mu.Lock()
				defer mu.Unlock()
				changes = append(changes, i)
			},
			BreakerChanged: func(open bool) {
				opened.Store(open)
				if open {
					opens.Add(1)
				}
			},
			Prepared: func(i outbox.PreparedInfo) {
				if i.Err == nil {
					return
				}
				inVain.Add(1)
				mu.Lock()
				defer mu.Unlock()
				reasons[digits.ReplaceAllString(i.Err.Error(), "…")]++
			},
			Ended: func(i outbox.EndedInfo) {
				if i.Err == nil {
					halves.Add(1)
				}
			},
			Relayed: func(i outbox.RelayedInfo) {
				if i.Err == nil {
					relayed.Add(1)
				}
			},
		}
	})
	router := s.router(box)
	router.Handle("ledger", s.topic, "counted", record)
	s.start(router)

	var (
		stop    atomic.Bool
		sent    atomic.Int64
		slow    atomic.Int64
		pace    atomic.Int64 // the time from the end of a transaction to the next of its caller
		publish errgroup.Group
	)
	pace.Store(int64(10 * time.Millisecond))
	// On a slow machine the callers keep the broker busy, and Auto tries no half messages: they go slower until it does.
	var seen, looked = int64(0), time.Now()
	useHalves := func() {
		if time.Since(looked) < 2*time.Second {
			return
		}
		if n := halves.Load(); n < seen+5 {
			pace.Store(min(2*pace.Load(), int64(160*time.Millisecond)))
		}
		seen, looked = halves.Load(), time.Now()
	}
	for c := range callers {
		publish.Go(func() error {
			for n := 1; !stop.Load(); n++ {
				begin := time.Now()
				if err := s.publish(box, event{fmt.Sprint("account-", c), n, s.topic}); err != nil {
					return err
				}
				sent.Add(1)
				if time.Since(begin) > halfTimeout {
					slow.Add(1)
				}
				time.Sleep(time.Duration(pace.Load())) // so that most find few events on their way, and some don't
			}
			return nil
		})
	}
	poll.Within(t, 60*time.Second, "both paths are in use", func() bool {
		useHalves()
		return halves.Load() > 20 && (path != outbox.Auto || relayed.Load() > 5)
	})
	if err := mq.Pause(); err != nil {
		t.Fatal(err)
	}
	before := sent.Load()
	poll.Within(t, 30*time.Second, "transactions go on", func() bool { return sent.Load() > before+500 })
	if path == outbox.HalfMessages && opens.Load() == 0 {
		t.Error("the breaker didn't open")
	}
	if err := mq.Continue(); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 20*time.Second, "the breaker closes", func() bool { return !opened.Load() })
	was := halves.Load()
	poll.Within(t, 60*time.Second, "half messages are used again", func() bool {
		useHalves()
		return halves.Load() > was+20
	})
	stop.Store(true)
	if err := publish.Wait(); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 60*time.Second, "all is handled", func() bool { return s.count("SELECT count(*) FROM effect") >= int(sent.Load()) })
	if n := s.count("SELECT count(*) FROM effect"); n != int(sent.Load()) {
		t.Errorf("%d effects of %d events", n, sent.Load())
	}
	if n := s.count(`SELECT count(*) FROM (SELECT number <> row_number() OVER (PARTITION BY key ORDER BY n) AS wrong FROM effect) x WHERE wrong`); n != 0 {
		t.Errorf("%d effects out of order", n)
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d events, %d by half messages; %d half messages in vain; %d transactions took longer than the half timeout; warnings %v",
		sent.Load(), halves.Load(), inVain.Load(), slow.Load(), changes)
	// Those that taught the breaker, or were in flight then, and the probes: two at a time.
	most := int64(3 + 2 + 2*5)
	if path == outbox.HalfMessages {
		most += callers
	}
	if n := inVain.Load(); n > most {
		t.Errorf("%d half messages were waited for in vain: %v", n, reasons)
	}
}
