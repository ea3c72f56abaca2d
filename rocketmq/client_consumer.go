package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"
	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/printable"
)

const (
	// consumeTimeout is when rocketmq-client-go sends a message back to the broker that is still being handled, so that it is
	// handled twice. It is as long as the broker itself keeps a message by default. One goroutine of each clientConsumer sleeps for
	// that long.
	consumeTimeout = 72 * time.Hour
	// settleDelay is how long rocketmq-client-go may take from the handler's return to having recorded the offset.
	settleDelay = 50 * time.Millisecond
)

// clientConsumer is a consumer of rocketmq-client-go, with a gate in front of the handler: the client's Shutdown waits for no
// handler, and loses what a handler settles after it.
type clientConsumer struct {
	consumer *consumer
	name     string // part of the client id under which brokers list it
	push     rmq.PushConsumer
	window   *shutdownWindow
	ctx      context.Context // of the handlers; ends when stop has finished or given up waiting
	cancel   context.CancelFunc
	draining context.Context // ends when the gate closes: no more messages are handled
	drain    context.CancelFunc
	released chan struct{} // closed after Shutdown: calls that found the gate closed may return

	mu         sync.Mutex
	gateClosed bool
	running    sync.WaitGroup // handlers behind the gate; Add only under mu while the gate is open
}

// newClientConsumer starts a consumer.
func (k *consumer) newClientConsumer() (*clientConsumer, error) {
	s, c := k.subscription, k.client
	name := c.config.Service + "-consumer-" + uuid.NewString()
	count, mebibytes, span := flowControl(s)
	window := newShutdownWindow(c.config.StopQuietPeriod)
	push, err := rmq.NewPushConsumer(
		rmqconsumer.WithNsResolver(c.nameServers),
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
		rmqconsumer.WithStrategy(window.allocate),
	)
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	cc := &clientConsumer{consumer: k, name: name, push: push, window: window, released: make(chan struct{})}
	cc.ctx, cc.cancel = context.WithCancel(context.Background())
	cc.draining, cc.drain = context.WithCancel(context.Background())
	abandon := func() {
		cc.cancel()
		cc.drain()
	}
	for _, topic := range s.Topics {
		if err := push.Subscribe(topic, rmqconsumer.MessageSelector{Type: rmqconsumer.TAG, Expression: "*"}, cc.consume); err != nil {
			abandon()
			return nil, printable.Errorf("subscribe topic %s: %w", topic, err)
		}
	}
	if err := push.Start(); err != nil {
		abandon()
		return nil, fmt.Errorf("%w: start consumer: %w", broker.ErrUnavailable, err)
	}
	return cc, nil
}

// id implements instance.
func (cc *clientConsumer) id() string { return cc.name }

// err implements instance. The client doesn't say.
func (cc *clientConsumer) err() error { return nil }

// brokersChanged implements instance. The client looks every 30 s.
func (cc *clientConsumer) brokersChanged() {}

// register implements instance. The client sends no heartbeat when it is asked to.
func (cc *clientConsumer) register(context.Context) bool { return false }

// consume is called by rocketmq-client-go for each message. It returns a result other than success only when the client, being
// shut down, ignores it; or to a serial consumer.
func (cc *clientConsumer) consume(ctx context.Context, messages ...*primitive.MessageExt) (rmqconsumer.ConsumeResult, error) {
	for _, m := range messages { // one, by ConsumeMessageBatchMaxSize
		if result := cc.consumeOne(ctx, m); result != rmqconsumer.ConsumeSuccess {
			return result, nil
		}
	}
	return rmqconsumer.ConsumeSuccess, nil
}

func (cc *clientConsumer) consumeOne(ctx context.Context, m *primitive.MessageExt) rmqconsumer.ConsumeResult {
	packed := isPacked(m)
	d, release, _ := cc.consumer.unpack(cc.draining.Done(), packed, func(maxBody int) broker.Delivery { return deliveryOf(ctx, m, packed, maxBody) })
	defer release() // while the consumer drains there may be no delivery: the gate is closed
	call := caller(cc.consumer.call)
	if hidesAKey(m) {
		call = cc.consumer.callRevealed
	}
	if cc.consumer.subscription.Serial {
		if !cc.settleSerial(ctx, d, call) {
			return rmqconsumer.SuspendCurrentQueueAMoment
		}
	} else if !cc.settle(d, call) {
		<-cc.released
		return rmqconsumer.ConsumeRetryLater
	}
	return rmqconsumer.ConsumeSuccess
}

// settle calls the handler until it settles the message. It returns false when the gate closes first.
func (cc *clientConsumer) settle(d broker.Delivery, call caller) bool {
	if !cc.enter() {
		return false
	}
	defer cc.running.Done()
	select {
	case cc.consumer.slots <- struct{}{}:
	case <-cc.draining.Done():
		return false
	}
	defer func() { <-cc.consumer.slots }()
	return cc.consumer.handle(cc.ctx, cc.draining.Done(), d, call)
}

// settleSerial calls the handler once. After a failure rocketmq-client-go keeps the message and delivers it again, so that a queue
// that has moved to another process meanwhile is not held up here. The pause until then must be set each time: the client's
// default is none at all.
func (cc *clientConsumer) settleSerial(ctx context.Context, d broker.Delivery, call caller) bool {
	pause := maxHandlerPause
	if cc.enter() {
		var err error
		select {
		case cc.consumer.slots <- struct{}{}:
			err = call(cc.ctx, d)
			<-cc.consumer.slots
		case <-cc.draining.Done():
			err = context.Canceled
		}
		cc.running.Done()
		if err == nil {
			return true
		}
		cc.consumer.reportFailed(d, err)
		pause = backoff(d.Attempt-1, minHandlerPause, maxHandlerPause)
	} else {
		<-cc.released
	}
	if o, ok := primitive.GetOrderlyCtx(ctx); ok {
		o.SuspendCurrentQueueTimeMillis = int(pause / time.Millisecond)
	}
	return false
}

// enter passes the gate, or returns false if it is closed. After true the caller must call running.Done.
func (cc *clientConsumer) enter() bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.gateClosed {
		return false
	}
	cc.running.Add(1)
	return true
}

// stop closes the gate, waits until ctx ends for the handlers behind it and then for the shutdown window, and shuts the client's
// consumer down, which stores the offsets. Then the context of handlers that still run ends; their messages are delivered again.
func (cc *clientConsumer) stop(ctx context.Context) error {
	cc.mu.Lock()
	cc.gateClosed = true
	cc.drain()
	cc.mu.Unlock()
	cc.push.Suspend() // no change of queues begins from now on
	err := background.Wait(ctx, &cc.running)
	if err == nil {
		time.Sleep(settleDelay) // the client doesn't show when it has recorded the last result
	}
	cc.window.wait(ctx)
	cc.cancel()
	if e := cc.push.Shutdown(); e != nil {
		err = errors.Join(err, e)
	}
	close(cc.released)
	return err
}
