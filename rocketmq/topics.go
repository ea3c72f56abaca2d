package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	defaultQueues = 8
	routePoll     = 50 * time.Millisecond
)

// CreateTopics creates topics on every broker that is up, and returns once each has a route. A topic that exists keeps
// its queues and its kind.
func (c *Client) CreateTopics(ctx context.Context, topics ...broker.Topic) error {
	create := func(ctx context.Context) error { return c.createTopics(ctx, topics) }
	return c.postpone("create topics", create(ctx), create)
}

func (c *Client) createTopics(ctx context.Context, topics []broker.Topic) error {
	var made []broker.Topic
	for _, t := range topics {
		t.Name = c.config.wire(t.Name)
		switch _, err := c.routes.of(ctx, t.Name); {
		case err == nil:
			continue
		case !errors.Is(err, broker.ErrTopicNotFound):
			return printable.Errorf("create topic %s: %w", t.Name, err)
		}
		if err := c.createTopic(ctx, t); err != nil {
			return printable.Errorf("create topic %s: %w", t.Name, err)
		}
		made = append(made, t)
	}
	for _, t := range made {
		// The answer comes before the name servers know: a broker that has just booted tells them up to 30 s later.
		for {
			_, err := c.routes.of(ctx, t.Name)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return printable.Errorf("create topic %s: wait for its route: %w", t.Name, err)
			case <-time.After(routePoll):
			}
		}
	}
	return nil
}

func (c *Client) createTopic(ctx context.Context, t broker.Topic) error {
	queues := strconv.Itoa(cmp.Or(t.Queues, defaultQueues))
	request := &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": t.Name, "defaultTopic": "TBW102",
		"readQueueNums": queues, "writeQueueNums": queues, "perm": strconv.Itoa(remoting.PermRead | remoting.PermWrite),
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
		"attributes": "+message.type=" + string(cmp.Or(t.Kind, broker.Normal)),
	}}
	created := 0
	var errs []error
	for _, l := range c.allLinks() {
		if l.down() != nil {
			continue
		}
		if _, err := l.call(ctx, request); err != nil {
			errs = append(errs, printable.Errorf("on broker %s: %w", l.name, err))
			continue
		}
		created++
	}
	if created == 0 && len(errs) == 0 {
		return fmt.Errorf("%w: no broker is up", broker.ErrUnavailable)
	}
	return errors.Join(errs...)
}

// VerifyTopics returns broker.ErrTopicNotFound, naming them, if some topics don't exist.
func (c *Client) VerifyTopics(ctx context.Context, topics ...string) error {
	verify := func(ctx context.Context) error { return c.verifyTopics(ctx, topics) }
	return c.postpone(fmt.Sprintf("verify topics %q", topics), verify(ctx), verify)
}

func (c *Client) verifyTopics(ctx context.Context, topics []string) error {
	var errs []error
	for _, topic := range topics {
		_, err := c.routes.fetch(ctx, c.config.wire(topic))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
