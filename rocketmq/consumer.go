package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
)

const (
	defaultMaxInFlight = 256
	defaultMaxBuffered = 1024

	minHold = 100 * time.Millisecond
	maxHold = 5 * time.Second

	probeTimeout = 3 * time.Second
)

// groupName is what 5.5 accepts; older brokers allow longer ones.
var groupName = regexp.MustCompile(`^[%|A-Za-z0-9_-]{1,120}$`)

// consumer is a subscription: one instance of the client's consumer at a time, renewed when a broker came back.
type consumer struct {
	client       *Client
	subscription broker.Subscription
	handler      broker.Handler
	slots        chan struct{} // for handlers, across topics and instances

	stopping chan struct{} // closed by the first Stop
	stopOnce sync.Once
	renewal  sync.Mutex  // held while an instance is being replaced or stopped; guards current
	current  *instance   // nil after Stop, and while a renewal has not succeeded yet
	renewing atomic.Bool // a renewal waits for its turn
	unlisted int         // times in a row that no broker listed it; guarded by renewal
	begun    bool        // the group has its place in all topics; guarded by renewal once Subscribe has returned

	mu      sync.Mutex
	trouble error
	brokers []string // that hold the topics
}

// Subscribe implements broker.Subscriber.
func (c *Client) Subscribe(ctx context.Context, s broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	fail := func(err error) (broker.Consumer, error) {
		return nil, printable.Errorf("subscribe group %s: %w", s.Group, err)
	}
	s.MaxInFlight = cmp.Or(s.MaxInFlight, defaultMaxInFlight)
	s.MaxBuffered = cmp.Or(s.MaxBuffered, defaultMaxBuffered)
	s.Group = c.config.wire(s.Group)
	s.Topics = slices.Clone(s.Topics)
	for i, topic := range s.Topics {
		s.Topics[i] = c.config.wire(topic)
	}
	switch {
	case !groupName.MatchString(s.Group):
		return fail(fmt.Errorf("%w: want 1 to 120 letters, digits, %% | _ or - as a group's name", broker.ErrIllegal))
	case len(s.Topics) == 0:
		return fail(fmt.Errorf("%w: no topic", broker.ErrIllegal))
	case s.MaxInFlight < 1 || s.MaxInFlight > 100_000:
		return fail(fmt.Errorf("%w: MaxInFlight %d: want 1 to 100,000", broker.ErrIllegal, s.MaxInFlight))
	case s.MaxBuffered < 1 || s.MaxBuffered > 65_535:
		return fail(fmt.Errorf("%w: MaxBuffered %d: want 1 to 65,535", broker.ErrIllegal, s.MaxBuffered))
	}
	k := &consumer{client: c, subscription: s, handler: h, slots: make(chan struct{}, s.MaxInFlight), stopping: make(chan struct{})}
	var i *instance
	err := k.start(ctx, &i)
	away := c.config.AwaitBroker && errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrRejected)
	if err != nil && !away {
		return fail(err)
	}
	k.current = i
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.consumers[k] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		_ = k.Stop(ctx) // nothing has reached it
		return fail(errClientClosed)
	}
	if away {
		c.log.Warn("no broker can be reached: the consumer starts when one comes", "group", s.Group, "error", err)
		k.setTrouble(printable.Errorf("consumer of group %s waits for a broker: %w", s.Group, err))
		k.renewSoon("no broker was there")
	}
	return k, nil
}

// start makes the consumer's instance, once the group may read and has its place.
func (k *consumer) start(ctx context.Context, i **instance) error {
	if err := k.probe(ctx); err != nil {
		return err
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	var err error
	*i, err = k.newInstance(ctx)
	return err
}

// probe asks each broker that holds a topic for the group's offset. The client's consumer starts without a word where a
// topic is missing a grant, and then never gets a message.
func (k *consumer) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	brokers := map[string]struct{}{}
	for _, topic := range k.subscription.Topics {
		queues, err := k.readable(ctx, topic)
		if err != nil {
			return err
		}
		var links []*link
		for _, q := range queues {
			if q.link != nil {
				links = append(links, q.link)
				brokers[q.Broker] = struct{}{}
			}
		}
		asked := 0
		last := fmt.Errorf("%w: no broker of topic %s is up", broker.ErrUnavailable, topic)
		for l, err := range k.client.fanOut(ctx, links, func(ctx context.Context, l *link) error {
			_, err := k.offset(ctx, l, topic, 0)
			return err
		}) {
			if err == nil {
				asked++
				continue
			}
			last = fmt.Errorf("topic %s on broker %s: %w", topic, l.name, err)
			if errors.Is(err, broker.ErrRejected) {
				return last
			}
		}
		if asked == 0 {
			return last
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.brokers = slices.Sorted(maps.Keys(brokers))
	return nil
}

// Err implements broker.Consumer.
func (k *consumer) Err() error {
	k.mu.Lock()
	trouble, brokers := k.trouble, k.brokers
	k.mu.Unlock()
	if trouble != nil {
		return trouble
	}
	var errs []error
	for _, name := range brokers {
		if l := k.client.link(name); l != nil {
			errs = append(errs, l.down())
		}
	}
	return errors.Join(errs...)
}

func (k *consumer) setTrouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trouble = err
}

// Stop implements broker.Consumer.
func (k *consumer) Stop(ctx context.Context) error {
	k.stopOnce.Do(func() { close(k.stopping) })
	k.renewal.Lock()
	defer k.renewal.Unlock()
	k.client.mu.Lock()
	delete(k.client.consumers, k)
	k.client.mu.Unlock()
	k.setTrouble(nil)
	i := k.current
	if i == nil {
		return nil
	}
	k.current = nil
	if err := i.stop(ctx); err != nil {
		return printable.Errorf("stop consumer of group %s: running handlers: %w", k.subscription.Group, err)
	}
	return nil
}

// handle calls the handler until it settles the message. It gives up, and returns false, when drain is closed.
func (k *consumer) handle(ctx context.Context, drain <-chan struct{}, d broker.Delivery) bool {
	for try := 0; ; try++ {
		err := k.call(ctx, d)
		if err == nil {
			return true
		}
		k.failed(d, err)
		t := time.NewTimer(backoff(try, minHold, maxHold))
		select {
		case <-drain:
			t.Stop()
			return false
		case <-t.C:
		}
		d.Attempt++
	}
}

func (k *consumer) failed(d broker.Delivery, err error) {
	k.client.log.Warn("handler failed; the message is held and handled again", "group", k.subscription.Group, "topic", d.Topic,
		"message_id", d.ID, "attempt", d.Attempt, "error", err)
	k.client.listener.HandlerFailed(HandlerInfo{Group: k.subscription.Group, Topic: d.Topic, MessageID: d.ID, Attempt: d.Attempt, Err: err})
}

// call runs the handler once. What it does to its goroutine, a panic or an end, is an error of this one try.
func (k *consumer) call(ctx context.Context, d broker.Delivery) error {
	d.Topic = k.client.config.bare(d.Topic)
	var err error
	ended := guard.Run(func() { err = k.handler(ctx, d) })
	if ended == nil {
		return err
	}
	k.client.sayEnded("handler", ended, "group", k.subscription.Group, "topic", d.Topic, "message_id", d.ID)
	return printable.Errorf("handler: %w", ended)
}

// flowControl are the client's numbers for how much of a queue waits in memory.
func flowControl(s broker.Subscription) (count int64, mebibytes, span int) {
	// A queue is paused when more than the span lies between its oldest unsettled message and its newest. The widest
	// span there is: one held message should not hold up what follows it.
	return int64(s.MaxBuffered), 32, 65_535
}

func attemptOf(reconsumed int32, props map[string]string) int {
	n := int(reconsumed) + 1
	if v, err := strconv.Atoi(props["RECONSUME_TIME"]); err == nil && v+1 > n {
		n = v + 1
	}
	return n
}
