package assembly

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
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

// PrepareTopics creates the topics and rocketflow.MissingEventsTopic if create is true. Else it verifies that the topics
// exist; an error that matches broker.ErrTopicNotFound names the setting that creates them.
func PrepareTopics(ctx context.Context, client *rocketmq.Client, topics []broker.Topic, create bool) error {
	if create {
		return client.CreateTopics(ctx, append(topics, broker.Topic{Name: rocketflow.MissingEventsTopic, Queues: 2})...)
	}
	err := client.VerifyTopics(ctx, TopicNames(topics)...)
	if errors.Is(err, broker.ErrTopicNotFound) {
		return fmt.Errorf("%w (ROCKETFLOW_CREATE_TOPICS=1 with app.ConfigFromEnv)", err) // the error says: set CreateTopics
	}
	return err
}
