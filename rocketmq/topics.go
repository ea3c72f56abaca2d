package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	defaultQueues = 8
	routePoll     = 50 * time.Millisecond // pause between two checks whether a new topic has a route
)

// CreateTopics creates topics on every broker that is up, and returns once the name servers know a route to each. A topic that exists keeps
// its queues and its kind. A topic that a broker forgets later, as the new master after a switch does whose slave had not copied it yet, is
// created again when a message is sent to it. If no broker can be reached the error matches broker.ErrUnavailable, or the topics are
// created later: see Config.AwaitBroker. If clients can't create topics with the profile the error matches broker.ErrUnauthorized.
func (c *Client) CreateTopics(ctx context.Context, topics ...broker.Topic) error {
	if err := c.config.Profile.RefusesCreatingTopics(); err != nil {
		return fmt.Errorf("create topics: %w: %w", broker.ErrUnauthorized, err)
	}
	for _, t := range topics {
		if err := c.config.Profile.checkTopic(c.config.wireName(t.Name)); err != nil {
			return fmt.Errorf("create topics: %w", err)
		}
	}
	create := func(ctx context.Context) error { return c.createTopics(ctx, topics) }
	return c.orDefer("create topics", create(ctx), create)
}

func (c *Client) createTopics(ctx context.Context, topics []broker.Topic) error {
	var created []broker.Topic
	for _, t := range topics {
		t.Name = c.config.wireName(t.Name)
		c.mu.Lock()
		c.ensured[t.Name] = t
		c.mu.Unlock()
		switch _, err := c.routes.get(ctx, t.Name); {
		case err == nil:
			continue
		case !errors.Is(err, broker.ErrTopicNotFound):
			return printable.Errorf("create topic %s: %w", t.Name, err)
		}
		if err := c.createTopicOn(ctx, t, c.allBrokerConns()...); err != nil {
			return printable.Errorf("create topic %s: %w", t.Name, err)
		}
		created = append(created, t)
	}
	for _, t := range created {
		// A broker responds before the name servers know the topic: one that has just booted registers with them up to 30 s later.
		for {
			_, err := c.routes.get(ctx, t.Name)
			if err == nil {
				break
			}
			if !background.Sleep(ctx, clock.System{}, routePoll) {
				return printable.Errorf("create topic %s: wait for its route: %w", t.Name, err)
			}
		}
	}
	return nil
}

// createAgain creates a topic of CreateTopics on a broker that had queues of it and has forgotten them. It returns false if the topic
// isn't one of these, or can't be created.
func (c *Client) createAgain(ctx context.Context, topic string, b *brokerConn) bool {
	c.mu.Lock()
	t, ensured := c.ensured[topic]
	c.mu.Unlock()
	route := c.routes.cached(topic)
	if !ensured || b == nil || route == nil {
		return false
	}
	t.Queues = 0
	for _, q := range route.queues {
		if q.broker == b.name {
			t.Queues++
		}
	}
	if t.Queues == 0 {
		return false
	}
	if err := c.createTopicOn(ctx, t, b); err != nil {
		c.log.Warn("a broker has forgotten a topic, and the topic can't be created there again: its events stay owed; create it with mqadmin updateTopic",
			keyTopic, topic, keyBroker, b.name, keyError, err)
		return false
	}
	c.log.Warn("a broker had forgotten a topic, as after a switch to a slave that had not copied it; the topic was created there again",
		keyTopic, topic, keyBroker, b.name)
	return true
}

// createTopicOn creates a topic on the brokers that are up.
func (c *Client) createTopicOn(ctx context.Context, t broker.Topic, on ...*brokerConn) error {
	queues := strconv.Itoa(cmp.Or(t.Queues, defaultQueues))
	request := &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": t.Name, "defaultTopic": remoting.DefaultTopic,
		"readQueueNums": queues, "writeQueueNums": queues, "perm": strconv.Itoa(remoting.PermRead | remoting.PermWrite),
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}}
	if c.config.Profile.Facts().TopicTypes.Is {
		request.Ext["attributes"] = "+message.type=" + string(cmp.Or(t.Kind, broker.Normal))
	}
	replicated, err := c.nameServers.replicated(ctx)
	if err != nil {
		return err
	}
	created := 0
	var errs []error
	for _, b := range on {
		if b.down() != nil {
			continue
		}
		request := request
		if replicated[b.name] && b.brokerVersion() < remoting.Version550 {
			// Slaves of these versions can't copy topics that have attributes: after a switch to one the topic would be gone.
			request = &remoting.Command{Code: request.Code, Ext: maps.Clone(request.Ext)}
			delete(request.Ext, "attributes")
		}
		if _, err := b.call(ctx, request); err != nil {
			errs = append(errs, printable.Errorf("on broker %s: %w", b.name, err))
			continue
		}
		created++
	}
	if created == 0 && len(errs) == 0 {
		return fmt.Errorf("%w: no broker is up", broker.ErrUnavailable)
	}
	return errors.Join(errs...)
}

// VerifyTopics checks that topics exist. The error names each that doesn't, says how to create it, and matches
// broker.ErrTopicNotFound. If no broker can be reached the error matches broker.ErrUnavailable, or the topics are checked later:
// see Config.AwaitBroker.
func (c *Client) VerifyTopics(ctx context.Context, topics ...string) error {
	verify := func(ctx context.Context) error { return c.verifyTopics(ctx, topics) }
	return c.orDefer(fmt.Sprintf("verify topics %q", topics), verify(ctx), verify)
}

func (c *Client) verifyTopics(ctx context.Context, topics []string) error {
	var errs []error
	for _, topic := range topics {
		name := c.config.wireName(topic)
		err := c.config.Profile.checkTopic(name)
		if err == nil {
			_, err = c.routes.fetch(ctx, name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
