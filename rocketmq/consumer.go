package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
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
	unlisted int         // times in a row that no broker listed it; the watch's own

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
	err := k.probe(ctx, true)
	if err == nil {
		i, err = k.newInstance(ctx)
	}
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

// probe asks each broker that holds a topic for the group's offset. The client's consumer starts without a word where a
// topic is missing a grant, and then never gets a message. With set a new group that wants it is set to the end.
func (k *consumer) probe(ctx context.Context, set bool) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	brokers := map[string]struct{}{}
	for _, topic := range k.subscription.Topics {
		route, err := k.client.names.route(ctx, topic)
		if err != nil {
			return k.client.unlisted(err)
		}
		asked := 0
		last := printable.Errorf("%w: no broker of topic %s is up", broker.ErrUnavailable, topic)
		for _, q := range route.Queues {
			l := k.client.link(q.Broker)
			if q.Perm&remoting.PermRead == 0 || l == nil {
				continue
			}
			brokers[q.Broker] = struct{}{}
			if err := k.begin(ctx, l, topic, q.Read, set && k.subscription.FromLast); err != nil {
				last = printable.Errorf("topic %s on broker %s: %w", topic, q.Broker, err)
				if errors.Is(err, broker.ErrRejected) {
					return last
				}
				continue
			}
			asked++
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

// pullWithSubscription is the flag of a pull that brings its own subscription.
const pullWithSubscription = 1 << 2

var errNoOffset = errors.New("the broker's answer has no offset")

// begin asks for the group's offsets in a topic on one broker. Where a group that wants to begin at the end has none,
// it is set: asked by the client, a broker would name the beginning of any queue that is still in its memory.
func (k *consumer) begin(ctx context.Context, l *link, topic string, queues int, set bool) error {
	for id := range queues {
		at := func(more ...string) map[string]string {
			ext := map[string]string{"consumerGroup": k.subscription.Group, "topic": topic, "queueId": strconv.Itoa(id)}
			for i := 0; i < len(more); i += 2 {
				ext[more[i]] = more[i+1]
			}
			return ext
		}
		_, err := l.call(ctx, &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: at("setZeroIfNotFound", "false")})
		var answer *remoting.ResponseError
		if err != nil && !(errors.As(err, &answer) && answer.Code == remoting.QueryNotFound) {
			return err
		}
		if !set {
			return nil // one question tells whether we may ask
		}
		if err == nil {
			continue
		}
		// A pull makes the broker create the group, without which it has no place for an offset, and tells the end of
		// the queue whatever it finds. (To ask for the end alone takes a grant that consumers don't have.)
		answered, err := l.call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: at("queueOffset", "0", "maxMsgNums", "1",
			"sysFlag", strconv.Itoa(pullWithSubscription), "commitOffset", "0", "suspendTimeoutMillis", "0",
			"subscription", "*", "subVersion", "0", "expressionType", "TAG")})
		if answered == nil || answered.Ext["maxOffset"] == "" {
			return fmt.Errorf("ask for the end of queue %d: %w", id, cmp.Or(err, errNoOffset))
		}
		if _, err := l.call(ctx, &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: at("commitOffset", answered.Ext["maxOffset"])}); err != nil {
			return fmt.Errorf("begin at the end of queue %d: %w", id, err)
		}
	}
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
	k.client.log.Warn("handler failed, message is held", "group", k.subscription.Group, "topic", d.Topic,
		"message_id", d.ID, "attempt", d.Attempt, "error", err)
	k.client.listener.HandlerFailed(HandlerInfo{Group: k.subscription.Group, Topic: d.Topic, MessageID: d.ID, Attempt: d.Attempt, Err: err})
}

// call runs the handler once.
func (k *consumer) call(ctx context.Context, d broker.Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			k.client.log.Error("handler panicked", "group", k.subscription.Group, "topic", d.Topic, "message_id", d.ID,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = printable.Errorf("handler panicked: %v", p)
		}
	}()
	d.Topic = k.client.config.bare(d.Topic)
	return k.handler(ctx, d)
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
