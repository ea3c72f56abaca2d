package rocketflowfx

import (
	"log/slog"

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

	// Topics must exist before anything starts. What is missing is an error, or is created with CreateTopics:
	// rocketflow.RefillTopic too, then.
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
