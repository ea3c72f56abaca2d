package rocketflowfx

import (
	"log/slog"
	"slices"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// Config is what the application supplies. The parts' own configurations are theirs to say all that can be set; the
// modules fill in what they can know: pool, broker, clock, logger, and the two names below.
type Config struct {
	Service string // names the source of events, the client and its groups; required
	Schema  string // of rocketflow's tables; default rocketflow.DefaultSchema

	// Topics are those that the application publishes to or reads. They must exist before anything starts: what is missing is
	// an error, or is created with CreateTopics. The same holds for Saga.TimeoutTopic. With CreateTopics rocketflow.MissingEventsTopic
	// is created, too; without, it has to be created for consumers to get again what they miss.
	//
	// Publish refuses an event for another topic with an error that names the known ones, so that a typo is found at once.
	// (Outbox.Topics, where it is set, says instead what can be published to.) Empty: nothing is checked, neither at the start
	// nor by Publish, and an event for a topic that doesn't exist stays owed.
	Topics       []broker.Topic
	CreateTopics bool

	// RequireBroker makes the start fail while no broker can be reached. By default the application starts: business
	// transactions commit, their events are owed, consumers begin when a broker comes, and readiness (Client.Ping, Router.Err)
	// says no until then.
	RequireBroker bool

	RocketMQ rocketmq.Config
	Outbox   outbox.Config
	Handlers handlers.Config
	Timeout  timeout.Config
	Saga     saga.Config

	Clock  rocketflow.Clock // default: the machine's; one for all parts
	Logger *slog.Logger     // default: warnings and errors go to stderr
}

// topics returns Topics with the topic of sagas' timeouts, each once. None, if Topics is empty.
func (c Config) topics() []broker.Topic {
	all := slices.Clone(c.Topics)
	timeouts := c.Saga.TimeoutTopic
	if len(all) == 0 || timeouts == "" || slices.ContainsFunc(all, func(t broker.Topic) bool { return t.Name == timeouts }) {
		return all
	}
	return append(all, broker.Topic{Name: timeouts})
}

func topicNames(topics []broker.Topic) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	return names
}
