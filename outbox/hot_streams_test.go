package outbox_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// halfLatency is how long a half message takes in these tests.
const halfLatency = 10 * time.Millisecond

// hotBundle is an outbox whose half messages take a while, and counts them.
func hotBundle(t *testing.T) (b *bundle, halves *atomic.Int64, edit func(*outbox.Config)) {
	halves = &atomic.Int64{}
	edit = func(c *outbox.Config) {
		c.Listener = &outbox.Listener{Prepared: func(outbox.PreparedInfo) { halves.Add(1) }}
		c.RelayPace = -1 // so that no event of the stream waits there
	}
	b = setup(t, edit)
	b.broker.preparing = func(broker.Message) { <-time.After(halfLatency) }
	return b, halves, edit
}

func (b *bundle) creditAs(t *testing.T, o *outbox.Outbox, account string) {
	t.Helper()
	one := *b
	one.outbox = o
	if err := testdb.Retry(func() error { return one.credit(context.Background(), account, 1) }); err != nil {
		t.Error(err)
	}
}

// Transactions that wait for each other's row locks don't wait for the broker, too: almost all of them take the relay. That they wait for
// those of other processes is seen by how closely they follow each other, so no other test runs beside this one.
func TestHotStreamsTakeTheRelay(t *testing.T) {
	for name, processes := range map[string]int{"one process": 1, "eight processes": 8} {
		t.Run(name, func(t *testing.T) {
			b, halves, edit := hotBundle(t)
			outboxes := []*outbox.Outbox{b.outbox}
			for len(outboxes) < processes {
				outboxes = append(outboxes, b.start(t, edit))
			}
			const callers, each = 8, 25
			var group sync.WaitGroup
			for i := range callers {
				group.Go(func() {
					for range each {
						b.creditAs(t, outboxes[i%processes], "hot")
					}
				})
			}
			group.Wait()
			most := int64(callers * each / 4)
			if processes > 1 {
				most *= 2 // of other processes it is only known that the stream has moved on
			}
			if n := halves.Load(); n > most {
				t.Errorf("%d half messages for %d transactions of one row", n, callers*each)
			}
			poll.Until(t, "the events", func() bool { return len(b.broker.events()) == callers*each })
		})
	}
}

// Transactions that wait for no other take half messages, also when they publish to one stream one after the other.
func TestStreamsWithoutWaitingTakeHalfMessages(t *testing.T) {
	t.Parallel()
	b, halves, _ := hotBundle(t)
	for range 20 {
		b.creditAs(t, b.outbox, "one")
	}
	if n := halves.Load(); n != 20 {
		t.Errorf("%d half messages for 20 transactions, one after the other", n)
	}
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			for j := range 20 {
				b.creditAs(t, b.outbox, fmt.Sprintf("account-%d-%d", i, j))
			}
		})
	}
	group.Wait()
	if n := halves.Load(); n != 80 {
		t.Errorf("%d half messages for 80 transactions of streams of their own", n)
	}
}
