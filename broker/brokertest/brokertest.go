// Package brokertest is the conformance suite of the broker port: what package broker promises, as cases that every
// driver passes on every broker that it is for.
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Harness { ... })
//	}
package brokertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// Driver is everything that a driver implements.
type Driver interface {
	broker.Sender
	broker.Scheduler
	broker.Subscriber
	broker.TransactionProducerOpener
}

// Harness is one broker and a way to reach it.
type Harness struct {
	// Open connects one more client, as another process would, and closes it when the test ends.
	Open func(t *testing.T) Driver
	// Close ends a client that Open returned, as the end of its process would.
	Close func(t *testing.T, d Driver)
	// CreateTopic creates a topic.
	CreateTopic func(t *testing.T, topic broker.Topic)
	// MaxBody is the largest body that the broker takes. Default 4 MiB.
	MaxBody int
}

// patience bounds each wait for something that must happen: a busy machine is no failure.
const patience = 60 * time.Second

// Run runs all cases, each on a harness of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, b *bench)
	}{
		{"Send", testSend},
		{"SendAsync", testSendAsync},
		{"SendGroup", testSendGroup},
		{"SendGroupErrors", testSendGroupErrors},
		{"SendRefusesReservedProperty", testReservedProperty},
		{"SendToUnknownTopic", testUnknownTopic},
		{"SendOversize", testOversize},
		{"SendAfterContextEnded", testContextEnded},
		{"OrderByShardingKey", testShardingKey},
		{"GlobalOrder", testGlobalOrder},
		{"ScheduleNeverEarly", testSchedule},
		{"SchedulePastInstant", testSchedulePast},
		{"ScheduleBeyondHorizon", testBeyondHorizon},
		{"ScheduleCancel", testCancel},
		{"TransactionCommit", testCommit},
		{"TransactionRollback", testRollback},
		{"TransactionCommitTwice", testCommitTwice},
		{"CheckCommits", testCheckCommits},
		{"CheckUnknownThenCommits", testCheckUnknown},
		{"CheckPanics", testCheckPanics},
		{"CheckAnsweredByOtherMember", testCheckOther},
		{"CheckAnsweredAfterRestart", testCheckRestart},
		{"RedeliveryAfterError", testHandlerError},
		{"RedeliveryAfterPanic", testHandlerPanic},
		{"RedeliveryAfterGoexit", testHandlerGoexit},
		{"DrainOnStop", testDrain},
		{"StopTwice", testStopTwice},
		{"MaxInFlight", testMaxInFlight},
		{"BeginOldest", testBeginOldest},
		{"BeginNewest", testBeginNewest},
		{"BeginAt", testBeginAt},
		{"SeveralTopics", testSeveralTopics},
		{"GroupChanges", testGroupChanges},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			t.Cleanup(cancel)
			h := open(t)
			if h.MaxBody == 0 {
				h.MaxBody = 4 << 20
			}
			c.run(t, &bench{Harness: h, Driver: h.Open(t), ctx: ctx})
		})
	}
}

// bench is what a case works with.
type bench struct {
	Harness
	Driver
	ctx context.Context
}

func (b *bench) topic(t *testing.T, queues int, kind broker.TopicKind) string {
	t.Helper()
	name := "conformance-" + unique()
	b.CreateTopic(t, broker.Topic{Name: name, Queues: queues, Kind: kind})
	return name
}

func unique() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

func (b *bench) send(t *testing.T, m broker.Message) broker.Receipt {
	t.Helper()
	r, err := b.Send(b.ctx, m)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	return r
}

// subscribe collects what a new group gets from topics.
func (b *bench) subscribe(t *testing.T, topics ...string) *inbox {
	t.Helper()
	in := newInbox()
	b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: topics}, in.put)
	return in
}

func (b *bench) consume(t *testing.T, d Driver, s broker.Subscription, h broker.Handler) broker.Consumer {
	t.Helper()
	c, err := d.Subscribe(b.ctx, s, h)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c broker.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Errorf("stop consumer: %v", err)
	}
}

func (b *bench) transactor(t *testing.T, d Driver, group string, check broker.Checker) broker.TransactionProducer {
	t.Helper()
	tr, err := d.OpenTransactionProducer(b.ctx, group, check)
	if err != nil {
		t.Fatalf("open transactor: %v", err)
	}
	return tr
}

// inbox collects deliveries.
type inbox struct {
	mu      sync.Mutex
	all     []broker.Delivery
	changed chan struct{} // closed and replaced by each delivery
}

func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

func (in *inbox) put(_ context.Context, d broker.Delivery) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = append(in.all, d)
	close(in.changed)
	in.changed = make(chan struct{})
	return nil
}

// until waits until what was delivered satisfies enough.
func (in *inbox) until(t *testing.T, what string, enough func(all []broker.Delivery) bool) []broker.Delivery {
	t.Helper()
	late := time.After(patience)
	for {
		in.mu.Lock()
		all, changed := in.all[:len(in.all):len(in.all)], in.changed
		in.mu.Unlock()
		if enough(all) {
			return all
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: not within %v; got %d messages: %s", what, patience, len(all), bodies(all))
		}
	}
}

func (in *inbox) wait(t *testing.T, n int) []broker.Delivery {
	t.Helper()
	return in.until(t, fmt.Sprintf("%d messages", n), func(all []broker.Delivery) bool { return len(all) >= n })
}

// waitBody waits for a message by its body.
func (in *inbox) waitBody(t *testing.T, body string) broker.Delivery {
	t.Helper()
	var found broker.Delivery
	in.until(t, "message "+body, func(all []broker.Delivery) bool {
		for _, d := range all {
			if string(d.Body) == body {
				found = d
				return true
			}
		}
		return false
	})
	return found
}

func (in *inbox) count(body string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, d := range in.all {
		if string(d.Body) == body {
			n++
		}
	}
	return n
}

func bodies(ds []broker.Delivery) string {
	var s []string
	for _, d := range ds {
		if len(s) == 20 {
			return strings.Join(s, " ") + " ..."
		}
		s = append(s, fmt.Sprintf("%.30s", d.Body))
	}
	return strings.Join(s, " ")
}

// wait waits for a signal.
func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
}
