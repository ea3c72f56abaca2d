package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"
	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	// consumeTimeout is when the client sends a message back that is still being handled, so that it would run twice.
	// Not before the broker itself deletes it. One sleeping goroutine per instance lives that long.
	consumeTimeout = 72 * time.Hour
	// settleDelay is how long the client may take from a handler's return to having noted the offset.
	settleDelay = 50 * time.Millisecond
	joinPoll    = 20 * time.Millisecond
)

// instance is one consumer of the client, with a gate in front of the handler: the client's Shutdown waits for nothing,
// and a result that comes after it is lost.
type instance struct {
	consumer *consumer
	name     string // part of the id under which brokers list it
	push     rmq.PushConsumer
	farewell *farewell
	ctx      context.Context // the handlers'; ends when stop's patience does
	cancel   context.CancelFunc
	drain    chan struct{} // closed: no new message passes the gate
	released chan struct{} // closed after Shutdown: what waits at the gate may return

	mu       sync.Mutex
	draining bool
	running  sync.WaitGroup // handlers past the gate; Add only under mu while not draining
}

// newInstance starts one and returns once a broker lists it in the group.
func (k *consumer) newInstance(ctx context.Context) (*instance, error) {
	s, c := k.subscription, k.client
	name := c.config.Service + "-consumer-" + uuid.NewString()
	count, mebibytes, span := flowControl(s)
	bye := newFarewell(c.config.StopQuietPeriod)
	push, err := rmq.NewPushConsumer(
		rmqconsumer.WithNsResolver(c.names),
		rmqconsumer.WithGroupName(s.Group),
		rmqconsumer.WithInstance(name),
		rmqconsumer.WithCredentials(primitive.Credentials{AccessKey: c.config.AccessKey, SecretKey: c.config.SecretKey}),
		rmqconsumer.WithConsumerModel(rmqconsumer.Clustering),
		rmqconsumer.WithConsumeFromWhere(rmqconsumer.ConsumeFromFirstOffset),
		rmqconsumer.WithConsumerOrder(s.Serial),
		rmqconsumer.WithConsumeMessageBatchMaxSize(1),
		rmqconsumer.WithConsumeGoroutineNums(s.MaxInFlight),
		rmqconsumer.WithPullThresholdForQueue(count),
		rmqconsumer.WithPullThresholdSizeForQueue(mebibytes),
		rmqconsumer.WithConsumeConcurrentlyMaxSpan(span),
		rmqconsumer.WithConsumeTimeout(consumeTimeout),
		rmqconsumer.WithMaxReconsumeTimes(-1),
		rmqconsumer.WithStrategy(bye.allot),
	)
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	i := &instance{consumer: k, name: name, push: push, farewell: bye, drain: make(chan struct{}), released: make(chan struct{})}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	for _, topic := range s.Topics {
		if err := push.Subscribe(topic, rmqconsumer.MessageSelector{Type: rmqconsumer.TAG, Expression: "*"}, i.consume); err != nil {
			i.cancel()
			return nil, printable.Errorf("subscribe topic %s: %w", topic, err)
		}
	}
	if err := push.Start(); err != nil {
		i.cancel()
		return nil, fmt.Errorf("%w: start consumer: %w", broker.ErrUnavailable, err)
	}
	for {
		known, err := i.known(ctx)
		if known {
			return i, nil
		}
		select {
		case <-ctx.Done():
			_ = i.stop(ctx) // what fails is the start
			if err == nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("%w: no broker lists the consumer: %w", broker.ErrUnavailable, err)
		case <-time.After(joinPoll):
		}
	}
}

// consume is what the client calls. It returns anything but success only when the client will not look at it.
func (i *instance) consume(ctx context.Context, messages ...*primitive.MessageExt) (rmqconsumer.ConsumeResult, error) {
	for _, m := range messages { // one, by ConsumeMessageBatchMaxSize
		d := deliveryOf(ctx, m)
		if i.consumer.subscription.Serial {
			if !i.settleSerial(ctx, d) {
				return rmqconsumer.SuspendCurrentQueueAMoment, nil
			}
			continue
		}
		if !i.settle(d) {
			<-i.released
			return rmqconsumer.ConsumeRetryLater, nil
		}
	}
	return rmqconsumer.ConsumeSuccess, nil
}

// settle runs the handler until the message is settled. false means that the instance drains.
func (i *instance) settle(d broker.Delivery) bool {
	if !i.enter() {
		return false
	}
	defer i.running.Done()
	select {
	case i.consumer.slots <- struct{}{}:
	case <-i.drain:
		return false
	}
	defer func() { <-i.consumer.slots }()
	return i.consumer.handle(i.ctx, i.drain, d)
}

// settleSerial runs the handler once. After a failure the client puts the message back, so that a queue that has moved
// to another process meanwhile is not held here. The pause must be set each time: by default there is none at all.
func (i *instance) settleSerial(ctx context.Context, d broker.Delivery) bool {
	pause := maxHold
	if i.enter() {
		var err error
		select {
		case i.consumer.slots <- struct{}{}:
			err = i.consumer.call(i.ctx, d)
			<-i.consumer.slots
		case <-i.drain:
			err = context.Canceled
		}
		i.running.Done()
		if err == nil {
			return true
		}
		i.consumer.failed(d, err)
		pause = backoff(d.Attempt-1, minHold, maxHold)
	} else {
		<-i.released
	}
	if o, ok := primitive.GetOrderlyCtx(ctx); ok {
		o.SuspendCurrentQueueTimeMillis = int(pause / time.Millisecond)
	}
	return false
}

func (i *instance) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.draining {
		return false
	}
	i.running.Add(1)
	return true
}

// stop closes the gate, waits for the handlers past it and for the moment to go until ctx ends, and shuts the client's
// consumer down, which stores the offsets. Handlers that still run then see their context end; what they hold comes again.
func (i *instance) stop(ctx context.Context) error {
	i.mu.Lock()
	if !i.draining {
		i.draining = true
		close(i.drain)
	}
	i.mu.Unlock()
	i.push.Suspend() // no change of queues begins from now on
	idle := make(chan struct{})
	go func() {
		i.running.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
		time.Sleep(settleDelay) // the client gives no sign when it has noted the last result
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	i.farewell.wait(ctx)
	i.cancel()
	if e := i.push.Shutdown(); e != nil {
		err = errors.Join(err, e)
	}
	close(i.released)
	return err
}

func deliveryOf(ctx context.Context, m *primitive.MessageExt) broker.Delivery {
	props := m.GetProperties()
	d := delivery(m.Topic, props, m.Body)
	d.Offset, d.Born, d.Stored = m.QueueOffset, time.UnixMilli(m.BornTimestamp), time.UnixMilli(m.StoreTimestamp)
	d.Attempt = attemptOf(m.ReconsumeTimes, props)
	if m.Queue != nil {
		d.Queue = m.Queue.QueueId
	}
	if in, ok := primitive.GetConsumerCtx(ctx); ok && in.MQ != nil {
		d.Broker = in.MQ.BrokerName
	}
	return d
}

// known tells whether a broker lists the instance in the group.
func (i *instance) known(ctx context.Context) (bool, error) {
	k := i.consumer
	k.mu.Lock()
	brokers := k.brokers
	k.mu.Unlock()
	var links []*link
	for _, name := range brokers {
		if l := k.client.link(name); l != nil {
			links = append(links, l)
		}
	}
	var listed atomic.Bool
	errs := k.client.fanOut(ctx, links, func(ctx context.Context, l *link) error {
		ids, err := l.members(ctx, k.subscription.Group)
		if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(id, i.name) }) {
			listed.Store(true)
		}
		return err
	})
	if listed.Load() {
		return true, nil
	}
	return false, errors.Join(slices.Collect(maps.Values(errs))...)
}

// members returns the ids under which the broker lists the consumers of a group.
func (l *link) members(ctx context.Context, group string) ([]string, error) {
	answer, err := l.call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
	var refused *remoting.ResponseError
	if errors.As(err, &refused) && refused.Code == remoting.SystemError {
		return nil, nil // the group has no consumer there
	}
	if err != nil {
		return nil, err
	}
	var list struct {
		IDs []string `json:"consumerIdList"`
	}
	if err := remoting.DecodeJSON(answer.Body, &list); err != nil {
		return nil, err
	}
	return list.IDs, nil
}
