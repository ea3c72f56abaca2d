// Package brokertest is the conformance suite of package broker: test cases of its delivery contract, which every driver must pass on
// every broker that it supports. A driver's test calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Harness {
//			return brokertest.Harness{
//				Open:        func(t *testing.T) brokertest.Driver { return open(t) },
//				Close:       func(t *testing.T, d brokertest.Driver) { d.(*mydriver.Client).Close(t.Context()) },
//				CreateTopic: func(t *testing.T, topic broker.Topic) { createTopic(t, topic) },
//			}
//		})
//	}
//
// Each case runs in parallel with the others, with topics and groups of its own, so that they can share one broker.
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// Driver has all interfaces that a driver must implement.
type Driver interface {
	broker.Sender
	broker.Scheduler
	broker.Subscriber
	broker.TransactionProducerOpener
}

// Harness connects the suite to one broker through the driver under test.
type Harness struct {
	// Open connects one more client, as another process would. It closes the client when the test ends. Required.
	Open func(t *testing.T) Driver
	// Close closes a client that Open returned, before the test ends. Required.
	Close func(t *testing.T, d Driver)
	// CreateTopic creates a topic and returns when the clients can use it. Required.
	CreateTopic func(t *testing.T, topic broker.Topic)
	// NoHalfMessages says that the driver must refuse half messages.
	NoHalfMessages bool
	// BeginsOldest says that the driver must refuse to begin anywhere but at the oldest message.
	BeginsOldest bool
	// BrokersByTopic says that a client finds brokers by the topics that it uses: until then none sends checks to it.
	BrokersByTopic bool
	// OneType says that all topics are of the kind broker.Normal, because a topic takes messages of one kind.
	OneType bool
	// MaxBody is the size of the largest body that the broker takes, in bytes.
	// Defaults to 4 MiB.
	MaxBody int
}

// waitLimit bounds each wait for something that must happen. It is long, so that a slow machine doesn't make a test fail.
const waitLimit = 60 * time.Second

// Run runs all cases as parallel subtests, each with a Harness of its own, which open returns.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, e *env)
	}{
		{"Send", testSend},
		{"SendAsync", testSendAsync},
		{"SendGroup", testSendGroup},
		{"SendGroupErrors", testSendGroupErrors},
		{"SendRefusesReservedProperty", testSendRefusesReservedProperty},
		{"SendToUnknownTopic", testSendToUnknownTopic},
		{"SendOversize", testSendOversize},
		{"SendAfterContextEnded", testSendAfterContextEnded},
		{"OrderByShardingKey", testOrderByShardingKey},
		{"GlobalOrder", testGlobalOrder},
		{"ScheduleNeverEarly", testScheduleNeverEarly},
		{"SchedulePastInstant", testSchedulePastInstant},
		{"ScheduleBeyondHorizon", testScheduleBeyondHorizon},
		{"ScheduleCancel", testScheduleCancel},
		{"TransactionCommit", testTransactionCommit},
		{"TransactionRollback", testTransactionRollback},
		{"TransactionCommitTwice", testTransactionCommitTwice},
		{"CheckCommits", testCheckCommits},
		{"CheckUnknownThenCommits", testCheckUnknownThenCommits},
		{"CheckPanics", testCheckPanics},
		{"CheckAnsweredByOtherMember", testCheckAnsweredByOtherMember},
		{"CheckAnsweredAfterRestart", testCheckAnsweredAfterRestart},
		{"RedeliveryAfterError", testRedeliveryAfterError},
		{"RedeliveryAfterPanic", testRedeliveryAfterPanic},
		{"RedeliveryAfterGoexit", testRedeliveryAfterGoexit},
		{"DrainOnStop", testDrainOnStop},
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
			ctx, cancel := context.WithTimeout(context.Background(), 2*waitLimit)
			t.Cleanup(cancel)
			h := open(t)
			if h.MaxBody == 0 {
				h.MaxBody = 4 << 20
			}
			c.run(t, &env{Harness: h, Driver: h.Open(t), ctx: ctx})
		})
	}
}

// env is the environment of one case: a harness, a first client, and a context.
type env struct {
	Harness
	Driver
	ctx context.Context
}

func (e *env) topic(t *testing.T, queues int, kind broker.TopicKind) string {
	t.Helper()
	name := "conformance-" + unique()
	if e.OneType {
		kind = broker.Normal
	}
	e.CreateTopic(t, broker.Topic{Name: name, Queues: queues, Kind: kind})
	return name
}

func unique() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

func (e *env) send(t *testing.T, m broker.Message) broker.Receipt {
	t.Helper()
	r, err := e.Send(e.ctx, m)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	return r
}

// subscribe starts a consumer of a new group that collects what it gets.
func (e *env) subscribe(t *testing.T, topics ...string) *collector {
	t.Helper()
	received := newCollector()
	e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: topics}, received.put)
	return received
}

func (e *env) consume(t *testing.T, d Driver, s broker.Subscription, h broker.Handler) broker.Consumer {
	t.Helper()
	c, err := d.Subscribe(e.ctx, s, h)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c broker.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Errorf("stop consumer: %v", err)
	}
}

func (e *env) transactionProducer(t *testing.T, d Driver, group string, check broker.Checker) broker.TransactionProducer {
	t.Helper()
	tr, err := d.OpenTransactionProducer(e.ctx, group, check)
	if err != nil {
		t.Fatalf("open transaction producer: %v", err)
	}
	return tr
}

// hasHalfMessages reports whether half messages can be used. Otherwise the driver must refuse them.
func (e *env) hasHalfMessages(t *testing.T) bool {
	t.Helper()
	if !e.NoHalfMessages {
		return true
	}
	_, err := e.OpenTransactionProducer(e.ctx, "producers-"+unique(), noCheck)
	if !errors.Is(err, broker.ErrNoHalfMessages) || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("open a transaction producer: got %v, want ErrNoHalfMessages", err)
	}
	return false
}

// collector is a handler that collects deliveries.
type collector struct {
	mu      sync.Mutex
	all     []broker.Delivery
	changed chan struct{} // closed and replaced by each delivery
}

func newCollector() *collector { return &collector{changed: make(chan struct{})} }

func (c *collector) put(_ context.Context, d broker.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, d)
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// until waits until enough returns true for the deliveries so far.
func (c *collector) until(t *testing.T, what string, enough func(all []broker.Delivery) bool) []broker.Delivery {
	t.Helper()
	late := time.After(waitLimit)
	for {
		c.mu.Lock()
		all, changed := c.all[:len(c.all):len(c.all)], c.changed
		c.mu.Unlock()
		if enough(all) {
			return all
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: not within %v; got %d messages: %s", what, waitLimit, len(all), bodies(all))
		}
	}
}

// wait waits for n messages.
func (c *collector) wait(t *testing.T, n int) []broker.Delivery {
	t.Helper()
	return c.until(t, fmt.Sprintf("%d messages", n), func(all []broker.Delivery) bool { return len(all) >= n })
}

// waitBody waits for a message with a body.
func (c *collector) waitBody(t *testing.T, body string) broker.Delivery {
	t.Helper()
	var found broker.Delivery
	c.until(t, "message "+body, func(all []broker.Delivery) bool {
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

// count returns how many messages with a body have come.
func (c *collector) count(body string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, d := range c.all {
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
	case <-time.After(waitLimit):
		t.Fatalf("%s: not within %v", what, waitLimit)
	}
}
