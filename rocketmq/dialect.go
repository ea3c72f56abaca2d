package rocketmq

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Dialect is how a broker takes scheduled messages. A broker with delay levels only (Apache 4) would be a third one:
// hops over levels until the instant.
type Dialect int

const (
	// Apache5 is RocketMQ 5 with its timer wheel: TIMER_DELIVER_MS, cancelled by a delete message.
	Apache5 Dialect = iota
	// DMS is Huawei's: __STARTDELIVERTIME, cancelled by __CANCEL_SCHEDULED_MSG. ApsaraMQ takes the first of the two.
	DMS
)

const (
	timerDeliver = "TIMER_DELIVER_MS"
	timerDelete  = "TIMER_DEL_UNIQKEY"
	startDeliver = "__STARTDELIVERTIME"
	cancelTimer  = "__CANCEL_SCHEDULED_MSG"
)

// schedule returns the properties that make a message wait until an instant.
func (d Dialect) schedule(at int64) map[string]string {
	ms := strconv.FormatInt(at, 10)
	if d == DMS {
		return map[string]string{startDeliver: ms}
	}
	return map[string]string{timerDeliver: ms}
}

// cancel returns the properties of the messages that cancel a timer, one or two of them.
func (d Dialect) cancel(t broker.Timer, version int) []map[string]string {
	ms := strconv.FormatInt(dueMillis(t.Due), 10)
	if d == DMS {
		return []map[string]string{{startDeliver: ms, cancelTimer: t.MessageID}}
	}
	// The key that finds the timer was the message's; from 5.3.2 on topic+message; and the message's again by default
	// in 5.5. A delete message with the wrong key does nothing, so in doubt both are sent.
	plain := map[string]string{timerDeliver: ms, timerDelete: t.MessageID}
	withTopic := map[string]string{timerDeliver: ms, timerDelete: t.Topic + "+" + t.MessageID}
	switch {
	case version > 0 && version < version532:
		return []map[string]string{plain}
	case version >= version532 && version < version540:
		return []map[string]string{withTopic}
	}
	return []map[string]string{plain, withTopic}
}

// Ordinals of broker versions, as in the header of their answers.
const (
	version532 = 477
	version540 = 493
)

// dueMillis rounds up: a message must not be early.
func dueMillis(at time.Time) int64 {
	ms := at.UnixMilli()
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}

// Horizon implements broker.Scheduler.
func (c *Client) Horizon() time.Duration { return c.config.TimerHorizon }

// Schedule implements broker.Scheduler.
func (c *Client) Schedule(ctx context.Context, m broker.Message, at time.Time) (broker.Timer, error) {
	now := c.config.Clock.Now()
	if at.Sub(now) > c.config.TimerHorizon {
		return broker.Timer{}, printable.Errorf("schedule to topic %s: %w: %s is more than %v ahead", m.Topic, broker.ErrBeyondHorizon, at.Format(time.RFC3339), c.config.TimerHorizon)
	}
	var own map[string]string
	if at.After(now) {
		own = c.config.Dialect.schedule(dueMillis(at))
	}
	result, err := c.send(ctx, m, own)
	if err != nil {
		return broker.Timer{}, err
	}
	return broker.Timer{MessageID: result.MsgID, Topic: m.Topic, Broker: result.MessageQueue.BrokerName, Due: time.UnixMilli(dueMillis(at))}, nil
}

// Cancel implements broker.Scheduler. A timer whose instant has passed is refused with broker.ErrIllegal.
func (c *Client) Cancel(ctx context.Context, t broker.Timer) error {
	t.Topic = c.config.wire(t.Topic)
	fail := func(err error) error {
		return printable.Errorf("cancel timer %s of topic %s: %w", t.MessageID, t.Topic, err)
	}
	if !t.Due.After(c.config.Clock.Now()) {
		return fail(fmt.Errorf("%w: its instant has passed", broker.ErrIllegal))
	}
	route, err := c.routes.of(ctx, t.Topic)
	if err != nil {
		return fail(err)
	}
	// Timers live on the broker that stored them.
	var q *queue
	for i := range route.queues {
		if route.queues[i].broker == t.Broker {
			q = &route.queues[i]
			break
		}
	}
	version := 0
	if l := c.link(t.Broker); l != nil {
		version = l.brokerVersion()
	}
	if q == nil {
		return fail(printable.Errorf("%w: broker %s doesn't hold the topic", broker.ErrUnavailable, t.Broker))
	}
	for _, own := range c.config.Dialect.cancel(t, version) {
		m := broker.Message{Topic: t.Topic, Body: []byte("cancel")}
		props, err := properties(m)
		if err != nil {
			return fail(err)
		}
		for name, value := range own {
			props[name] = value
		}
		if _, err := c.sendTo(ctx, *q, newMessage(m, props, *q)); err != nil {
			return fail(err)
		}
	}
	return nil
}
