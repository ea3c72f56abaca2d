package assembly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Topics returns the topics of a service: those that the application names, and the topic of its sagas' timeouts, each
// once. It returns none if the application names none, as nothing is checked then.
func Topics(named []broker.Topic, sagaTimeouts string) []broker.Topic {
	all := slices.Clone(named)
	if len(all) == 0 || sagaTimeouts == "" || slices.ContainsFunc(all, func(t broker.Topic) bool { return t.Name == sagaTimeouts }) {
		return all
	}
	return append(all, broker.Topic{Name: sagaTimeouts})
}

// TopicNames returns the names of topics.
func TopicNames(topics []broker.Topic) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	return names
}

// missingEventsTopic is created or listed beside the topics of the application.
var missingEventsTopic = broker.Topic{Name: rocketflow.MissingEventsTopic, Queues: 2}

// Parts are the Configs of the parts, and the router with the handlers of the application, for Requirements.
type Parts struct {
	Service  string
	RocketMQ rocketmq.Config
	Outbox   outbox.Config
	Topics   []broker.Topic // see Topics
	Router   *handlers.Router
}

// Requirements returns what a service needs at the broker: the topics that it names and those that its handlers read, the topic of
// missing-events requests, and the groups of its consumers and of its outbox.
func (p Parts) Requirements() (rocketmq.Requirements, error) {
	p.Outbox.Source = cmp.Or(p.Outbox.Source, p.Service)
	topics := append(slices.Clone(p.Topics), missingEventsTopic)
	groups := p.Outbox.ConsumerGroups(p.RocketMQ.Profile.RefusesHalfMessages() == nil)
	for _, s := range p.Router.Subscriptions() {
		groups = append(groups, s.Group)
		for _, topic := range s.Topics {
			topics = append(topics, broker.Topic{Name: topic})
		}
	}
	return p.RocketMQ.Requirements(topics, groups)
}

// PrepareTopics creates the topics and rocketflow.MissingEventsTopic if create is true. Else it verifies that the topics
// exist; an error that matches broker.ErrTopicNotFound names the setting that creates them.
func PrepareTopics(ctx context.Context, client *rocketmq.Client, topics []broker.Topic, create bool) error {
	if create {
		if err := client.Profile().RefusesCreatingTopics(); err != nil {
			return valid.Field("app.Config.CreateTopics", err.Error())
		}
		return client.CreateTopics(ctx, append(topics, missingEventsTopic)...)
	}
	err := client.VerifyTopics(ctx, TopicNames(topics)...)
	if errors.Is(err, broker.ErrTopicNotFound) && client.Profile().RefusesCreatingTopics() == nil {
		return fmt.Errorf("%w (ROCKETFLOW_CREATE_TOPICS=1 with app.ConfigFromEnv)", err) // the error says: set CreateTopics
	}
	return err
}
