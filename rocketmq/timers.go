package rocketmq

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	timerDeliver = "TIMER_DELIVER_MS"
	timerDelete  = "TIMER_DEL_UNIQKEY"
	startDeliver = "__STARTDELIVERTIME"
	cancelTimer  = "__CANCEL_SCHEDULED_MSG"
)

// scheduleProperties returns the properties that make a message visible at an instant, in Unix milliseconds.
func (f TimerFormat) scheduleProperties(at int64) map[string]string {
	return map[string]string{f.Deliver: strconv.FormatInt(at, 10)}
}

// cancelProperties returns the properties of the messages that cancel a timer on a broker of a version, one message or two.
func (f TimerFormat) cancelProperties(t broker.Timer, version int) []map[string]string {
	ms := strconv.FormatInt(dueMillis(t.Due), 10)
	// The key of a timer is the message's unique key; with Apache's format from 5.3.2 on topic+key; and in 5.5 by default the unique key
	// again. A cancellation with the wrong key has no effect, so if the version leaves it open both are sent.
	plain := map[string]string{f.Deliver: ms, f.Cancel: t.MessageID}
	withTopic := map[string]string{f.Deliver: ms, f.Cancel: t.Topic + "+" + t.MessageID}
	switch {
	case f.Cancel != timerDelete || version > 0 && version < remoting.Version532:
		return []map[string]string{plain}
	case version >= remoting.Version532 && version < remoting.Version540:
		return []map[string]string{withTopic}
	}
	return []map[string]string{plain, withTopic}
}

// dueMillis returns an instant in Unix milliseconds, rounded up: a message must not be early.
func dueMillis(at time.Time) int64 {
	ms := at.UnixMilli()
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}

// is4 reports whether a version is known to be one of RocketMQ 4, which has no timers.
func is4(version int) bool { return version > 0 && version < remoting.FirstOf500 }

// Horizon implements [broker.Scheduler]. It returns Config.TimerHorizon, or 0 if the profile has no timers that are used, or a broker
// is known to have none.
func (c *Client) Horizon() time.Duration {
	if c.config.Profile.RefusesTimers() != nil {
		return 0
	}
	if c.config.Profile == Apache5 {
		for _, b := range c.allBrokerConns() {
			if is4(b.brokerVersion()) {
				return 0
			}
		}
	}
	return cmp.Or(c.config.TimerHorizon, c.config.Profile.Facts().Horizon.Is)
}

// timerFormat returns how timers are sent. The error matches broker.ErrNoTimers and says why they aren't.
func (c *Client) timerFormat() (TimerFormat, error) {
	if err := c.config.Profile.RefusesTimers(); err != nil {
		return TimerFormat{}, fmt.Errorf("%w: %w", broker.ErrNoTimers, err)
	}
	return c.config.Profile.Facts().Timers.Is, nil
}

// checkTimers returns an error that matches broker.ErrNoTimers if a broker is known to have no timers. It would deliver a
// scheduled message at once, and the message that cancels it as well.
func (c *Client) checkTimers(brokerName string) error {
	b := c.brokerConn(brokerName)
	if b == nil || c.config.Profile != Apache5 || !is4(b.brokerVersion()) {
		return nil
	}
	return printable.Errorf("%w: broker %s at %s is RocketMQ 4 (version number %d)", broker.ErrNoTimers, b.name, b.address, b.brokerVersion())
}

// checkTopicTimers returns the error of checkTimers for the first broker of a topic that has no timers.
func (c *Client) checkTopicTimers(ctx context.Context, topic string) error {
	route, err := c.routes.get(ctx, c.config.wireName(topic))
	if err != nil {
		return err
	}
	checked := ""
	for _, q := range route.queues {
		if q.broker == checked {
			continue
		}
		if err := c.checkTimers(q.broker); err != nil {
			return err
		}
		checked = q.broker
	}
	return nil
}

// Schedule implements [broker.Scheduler]. On a topic with queues on a broker without timers it fails with broker.ErrNoTimers.
func (c *Client) Schedule(ctx context.Context, m broker.Message, at time.Time) (broker.Timer, error) {
	now := c.config.Clock.Now()
	var own map[string]string
	if at.After(now) {
		format, err := c.timerFormat()
		if err != nil {
			return broker.Timer{}, printable.Errorf("schedule to topic %s: %w", m.Topic, err)
		}
		if err := c.checkTopicTimers(ctx, m.Topic); err != nil {
			return broker.Timer{}, printable.Errorf("schedule to topic %s: %w", m.Topic, err)
		}
		if horizon := c.Horizon(); at.Sub(now) > horizon {
			return broker.Timer{}, printable.Errorf("schedule to topic %s: %w: %s is more than %v ahead", m.Topic, broker.ErrBeyondHorizon, at.Format(time.RFC3339), horizon)
		}
		own = format.scheduleProperties(dueMillis(at))
	}
	result, err := c.send(ctx, m, own)
	if err != nil {
		return broker.Timer{}, err
	}
	return broker.Timer{MessageID: result.receipt.MessageID, Topic: m.Topic, Broker: result.receipt.Broker, Due: time.UnixMilli(dueMillis(at))}, nil
}

// Cancel implements [broker.Scheduler]. It refuses a timer whose instant has passed with broker.ErrIllegal.
func (c *Client) Cancel(ctx context.Context, t broker.Timer) error {
	t.Topic = c.config.wireName(t.Topic)
	fail := func(err error) error {
		return printable.Errorf("cancel timer %s of topic %s: %w", t.MessageID, t.Topic, err)
	}
	format, err := c.timerFormat()
	if err != nil {
		return fail(err)
	}
	if format.Cancel == "" {
		return fail(fmt.Errorf("%w: profile %s has no way to cancel them", broker.ErrNoTimers, c.config.Profile))
	}
	if err := c.checkTimers(t.Broker); err != nil {
		return fail(err)
	}
	if !t.Due.After(c.config.Clock.Now()) {
		return fail(fmt.Errorf("%w: its instant has passed", broker.ErrIllegal))
	}
	route, err := c.routes.get(ctx, t.Topic)
	if err != nil {
		return fail(err)
	}
	// Only the broker that stored the timer can cancel it.
	var q *queue
	for i := range route.queues {
		if route.queues[i].broker == t.Broker {
			q = &route.queues[i]
			break
		}
	}
	version := 0
	if b := c.brokerConn(t.Broker); b != nil {
		version = b.brokerVersion()
	}
	if q == nil {
		return fail(printable.Errorf("%w: broker %s doesn't hold the topic", broker.ErrUnavailable, t.Broker))
	}
	for _, own := range format.cancelProperties(t, version) {
		m := broker.Message{Topic: t.Topic, Body: []byte("cancel")}
		props, err := c.config.wireProperties(m)
		if err != nil {
			return fail(err)
		}
		for name, value := range own {
			props[name] = value
		}
		if _, err := c.sendTo(ctx, *q, outgoing{m.Topic, m.Body, props}); err != nil {
			return fail(err)
		}
	}
	return nil
}
