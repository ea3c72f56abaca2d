package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
)

const (
	defaultMaxInFlight = 256
	defaultMaxBuffered = 1024

	// Between two calls of a handler for one message.
	minHandlerPause = 100 * time.Millisecond
	maxHandlerPause = 5 * time.Second

	grantsTimeout = 3 * time.Second // of a check of a consumer's grants
	listedTimeout = 3 * time.Second // of a check that brokers list a consumer
)

// consumer implements broker.Consumer. It has one instance at a time. One of rocketmq-client-go is replaced when a broker has come
// back: see restart.
type consumer struct {
	client       *Client
	subscription broker.Subscription
	handler      broker.Handler
	slots        chan struct{}       // one token for each call of handler in progress
	unpacked     *semaphore.Weighted // bytes of decompressed bodies: see unpack
	work         background.Group    // restarts; stopped by Stop

	replacing      sync.Mutex  // held while current is replaced, stopped or checked; guards the fields up to startSet
	current        instance    // nil after Stop, and while a restart has not succeeded yet
	notListed      int         // how many checks in sequence found that no broker lists the consumer
	startSet       bool        // the group has an offset in all queues of its topics
	restartPending atomic.Bool // a restart waits for replacing

	mu      sync.Mutex
	problem error    // why no messages come; nil: none is known
	brokers []string // that hold the topics
	running instance // as current
}

// Subscribe implements [broker.Subscriber].
func (c *Client) Subscribe(ctx context.Context, s broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	fail := func(err error) (broker.Consumer, error) {
		return nil, printable.Errorf("subscribe group %s: %w", s.Group, err)
	}
	s.MaxInFlight = cmp.Or(s.MaxInFlight, defaultMaxInFlight)
	s.MaxBuffered = cmp.Or(s.MaxBuffered, defaultMaxBuffered)
	s.Group = c.config.wireName(s.Group)
	s.Topics = slices.Clone(s.Topics)
	for i, topic := range s.Topics {
		s.Topics[i] = c.config.wireName(topic)
	}
	switch {
	case len(s.Topics) == 0:
		return fail(fmt.Errorf("%w: no topic", broker.ErrIllegal))
	case s.MaxInFlight < 1 || s.MaxInFlight > 100_000:
		return fail(fmt.Errorf("%w: MaxInFlight %d: want 1 to 100,000", broker.ErrIllegal, s.MaxInFlight))
	case s.MaxBuffered < 1 || s.MaxBuffered > 65_535:
		return fail(fmt.Errorf("%w: MaxBuffered %d: want 1 to 65,535", broker.ErrIllegal, s.MaxBuffered))
	}
	if err := c.config.Profile.checkGroup(s.Group); err != nil {
		return fail(err)
	}
	for _, topic := range s.Topics {
		if err := c.config.Profile.checkTopic(topic); err != nil {
			return fail(err)
		}
	}
	if err := c.config.Profile.refusesBegin(s.Begin); err != nil {
		return fail(fmt.Errorf("%w: %w", broker.ErrBeginsOldest, err))
	}
	k := &consumer{client: c, subscription: s, handler: h, slots: make(chan struct{}, s.MaxInFlight)}
	k.unpacked = semaphore.NewWeighted(maxUnpacked + int64(c.config.MaxMessage))
	_ = k.work.Start(ctx, func(context.Context) error { return nil }) // can't fail; a broker that lists the consumer may have requests for it
	first, err := k.start(ctx)
	deferred := c.config.AwaitBroker && errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrRejected)
	if err != nil && !deferred {
		_ = k.work.Stop(ctx) // the subscription has failed, whatever this says
		return fail(err)
	}
	k.setCurrent(first)
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.consumers[k] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		_ = k.Stop(ctx) // it has handled nothing
		return fail(errClientClosed)
	}
	if deferred {
		c.log.Warn("no broker can be reached; the consumer starts as soon as one can", keyGroup, s.Group, keyError, err)
		k.setProblem(printable.Errorf("consumer of group %s waits for a broker: %w", s.Group, err))
		k.restartSoon(FirstBrokerCame, "")
	}
	return k, nil
}

// start checks the grants, sets the group's first offsets, and starts an instance, which a broker lists when start returns.
func (k *consumer) start(ctx context.Context) (instance, error) {
	if err := k.checkGrants(ctx, true); err != nil {
		return nil, err
	}
	if err := k.setStart(ctx); err != nil {
		return nil, err
	}
	var next instance
	if k.client.config.Transport == Own {
		next = k.newOwnConsumer()
	} else {
		cc, err := k.newClientConsumer()
		if err != nil {
			return nil, err
		}
		next = cc
	}
	if err := k.awaitListed(ctx, next); err != nil {
		_ = next.stop(ctx) // the start has failed, whatever stop says
		return nil, err
	}
	return next, nil
}

// noQueue is the number of a queue that no topic has.
const noQueue = math.MaxInt32

// checkGrants requests the group's offset, and tries a pull, at each broker that holds a topic of the subscription. Without a grant the
// broker refuses that, whereas a consumer of rocketmq-client-go starts without an error and never gets a message.
//
// ACL 1.0, of RocketMQ 4 and the first 5, checks no grants for the offset. But a pull may take from the group's members what RocketMQ 5
// tells only once, see pullAsTool: there it names a queue that doesn't exist, and only at the start, because brokers log it.
func (k *consumer) checkGrants(ctx context.Context, starting bool) error {
	ctx, cancel := context.WithTimeout(ctx, grantsTimeout)
	defer cancel()
	brokers := map[string]struct{}{}
	for _, topic := range k.subscription.Topics {
		queues, err := k.readableQueues(ctx, topic)
		if err != nil {
			return err
		}
		var conns []*brokerConn
		for _, q := range queues {
			if q.conn != nil {
				conns = append(conns, q.conn)
				brokers[q.Broker] = struct{}{}
			}
		}
		granted := 0
		last := fmt.Errorf("%w: no broker of topic %s is up", broker.ErrUnavailable, topic)
		for b, err := range k.client.callEach(ctx, conns, func(ctx context.Context, b *brokerConn) error {
			if _, err := k.hasOffset(ctx, b, topic, 0); err != nil {
				return err
			}
			queue := 0
			switch {
			case is4(b.brokerVersion()):
			case starting:
				queue = noQueue
			default:
				return nil
			}
			if _, err := k.pullOne(ctx, b, topic, queue, 0); errors.Is(err, broker.ErrUnauthorized) {
				return err
			}
			return nil
		}) {
			if err == nil {
				granted++
				continue
			}
			last = fmt.Errorf("topic %s on broker %s: %w", topic, b.name, err)
			if errors.Is(err, broker.ErrRejected) {
				return last
			}
		}
		if granted == 0 {
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
	problem, brokers, running := k.problem, k.brokers, k.running
	k.mu.Unlock()
	if problem != nil {
		return problem
	}
	var errs []error
	for _, name := range brokers {
		if b := k.client.brokerConn(name); b != nil {
			errs = append(errs, b.down())
		}
	}
	if running != nil {
		errs = append(errs, running.err())
	}
	return errors.Join(errs...)
}

// setCurrent sets the current instance. replacing is held.
func (k *consumer) setCurrent(i instance) {
	k.current = i
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = i
}

// brokersChanged has the instance look again where the brokers of its topics are.
func (k *consumer) brokersChanged() {
	k.mu.Lock()
	running := k.running
	k.mu.Unlock()
	if running != nil {
		running.brokersChanged()
	}
}

func (k *consumer) setProblem(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problem = err
}

// Stop implements broker.Consumer.
func (k *consumer) Stop(ctx context.Context) error {
	_ = k.work.Stop(ctx) // a restart that goes on after ctx has ended is waited for below
	k.replacing.Lock()
	defer k.replacing.Unlock()
	k.client.mu.Lock()
	delete(k.client.consumers, k)
	k.client.mu.Unlock()
	k.setProblem(nil)
	current := k.current
	if current == nil {
		return nil
	}
	k.setCurrent(nil)
	if err := current.stop(ctx); err != nil {
		return printable.Errorf("stop consumer of group %s: handlers in progress: %w", k.subscription.Group, err)
	}
	return nil
}

// caller calls the handler once.
type caller func(context.Context, broker.Delivery) error

// handle calls the handler, by call, until it settles the message. It returns false when stop is closed first.
func (k *consumer) handle(ctx context.Context, stop <-chan struct{}, d broker.Delivery, call caller) bool {
	for attempt := 0; ; attempt++ {
		err := call(ctx, d)
		if err == nil {
			return true
		}
		k.reportFailed(d, err)
		pause := time.NewTimer(backoff(attempt, minHandlerPause, maxHandlerPause))
		select {
		case <-pause.C:
		case <-stop:
			pause.Stop()
			return false
		}
		d.Attempt++
	}
}

func (k *consumer) reportFailed(d broker.Delivery, err error) {
	k.client.log.Warn("handler failed; the message is held and the handler called again", keyGroup, k.subscription.Group, keyTopic, d.Topic,
		keyMessageID, d.ID, keyAttempt, d.Attempt, keyError, err)
	k.client.listener.HandlerFailed(HandlerInfo{Group: k.subscription.Group, Topic: d.Topic, MessageID: d.ID, Attempt: d.Attempt, Err: err})
}

// call calls the handler once. A panic or a runtime.Goexit of the handler is an error of this one call.
func (k *consumer) call(ctx context.Context, d broker.Delivery) error {
	d.Topic = k.client.config.topicOf(d.Topic)
	var err error
	ended := guard.Run(func() { err = k.handler(ctx, d) })
	if ended == nil {
		return err
	}
	k.client.logPanic("a handler", ended, keyGroup, k.subscription.Group, keyTopic, d.Topic, keyMessageID, d.ID)
	return printable.Errorf("handler: %w", ended)
}

// flowControl returns rocketmq-client-go's limits of what it holds of one queue in memory: messages, mebibytes, and the span
// between the oldest message that isn't settled and the newest. The span is the widest that the client allows, so that one
// message that is held does not stop those that follow it.
func flowControl(s broker.Subscription) (count int64, mebibytes, span int) {
	return int64(s.MaxBuffered), 32, 65_535
}

// maxAttempt is the highest count of deliveries that is told: the count comes with the message, and can be any number.
const maxAttempt = 1_000_000

// attemptOf returns the broker's count of deliveries, beginning with 1.
func attemptOf(reconsumed int, props map[string]string) int {
	counted, _ := strconv.Atoi(props["RECONSUME_TIME"]) // what is no number counts nothing
	return 1 + min(max(0, reconsumed, counted), maxAttempt-1)
}
