package app

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
	"github.com/rocketflow/rocketflow/tracing"
)

// Config configures a service. Service, RocketMQ.NameServers and one of Pool and Database are required; [ConfigFromEnv]
// reads all of them from the environment.
//
// The Configs of the parts have the settings of each part. Their Pool, Broker, Source, Schema, Clock, Logger, Transactor and
// the like are filled in from this Config unless they are set.
type Config struct {
	// Service is the name of the service. It is the source of its events, and the names of its connections, consumer groups
	// and sagas' consumers begin with it. All processes of a service have the same name and the same database. Required.
	Service string

	// Schema is the Postgres schema of rocketflow's tables. Each service needs its own.
	// Defaults to rocketflow.DefaultSchema.
	Schema string

	// Pool is the application's connection pool. The App uses it and doesn't close it.
	Pool *pgxpool.Pool

	// Database configures a pool that New opens and Stop closes. Set either Pool or Database.
	Database *pgxpool.Config

	// Migrate makes Start apply the migrations of rocketflow's tables that are missing. Several processes may do so at the
	// same time.
	// Defaults to false: tables that are missing or too old are an error that matches rocketflow.ErrNotMigrated.
	Migrate bool

	// Topics are the topics that the application publishes to or reads. Start verifies that they and Saga.TimeoutTopic
	// exist, and Publish refuses events for other topics with an error that names the known ones. If Outbox.Topics is set,
	// Publish accepts those instead.
	// Defaults to none: then nothing is checked, and an event for a topic that doesn't exist stays owed.
	Topics []broker.Topic

	// CreateTopics makes Start create Topics, Saga.TimeoutTopic and rocketflow.MissingEventsTopic where they are missing. A
	// profile of RocketMQ with which clients can't create topics (RocketMQ.Profile) refuses it: see App.Requirements.
	// Defaults to false: a missing topic is an error that matches broker.ErrTopicNotFound. rocketflow.MissingEventsTopic is
	// not verified then; without it consumers can't request events that they miss.
	CreateTopics bool

	// RequireBroker makes New and Start fail while no broker can be reached.
	// Defaults to false: the service starts, business transactions commit, their events are owed, and the consumers
	// begin as soon as a broker can be reached.
	RequireBroker bool

	// ListenAddr is the address, [host]:port, of the HTTP server that serves the handler given to App.Serve.
	// Defaults to 127.0.0.1:8080, which other machines can't reach; :8080 listens on all interfaces.
	ListenAddr string

	// StopTimeout bounds the orderly stop that Run performs at its end. It also bounds the clean-up after a Start that
	// failed.
	// Defaults to 20 s.
	StopTimeout time.Duration

	RocketMQ rocketmq.Config // the connection to the broker; NameServers is required
	Outbox   outbox.Config   // publishing
	Handlers handlers.Config // the router, and the defaults of its consumers
	Timeout  timeout.Config  // the scheduler of timeouts
	Saga     saga.Config     // the engine of sagas

	// Doctor makes the process examine its database and broker again and again, log what it finds, and export it if Metrics is set:
	// see package doctor. Fields that are not set are filled in from this Config. It should have rights that a service needs for
	// nothing else; what it may not see is not known.
	// Defaults to nil: no examinations.
	Doctor *doctor.Config

	// Reconcile makes one process of the service compare continuously what was published with what consumers have handled, as
	// `rocketflow reconcile` does. Set Reconcile.Pools if consumers or publishers have other databases.
	// Defaults to nil: off.
	Reconcile *operate.ReconcilerConfig

	// Metrics counts the calls of all parts' listeners, in addition to the Listeners of their Configs.
	// Defaults to nil: nothing is counted.
	Metrics *metrics.Metrics

	// Tracing records OpenTelemetry's spans and metrics of all parts.
	// Defaults to nil: none, and events carry no trace context.
	Tracing *tracing.Tracing

	// Clock is the clock of all parts, which tests set.
	// Defaults to the machine's.
	Clock rocketflow.Clock

	// Logger is the log of the App and of all parts.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

const (
	defaultListenAddr  = "127.0.0.1:8080"
	defaultStopTimeout = 20 * time.Second
)

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.ListenAddr = cmp.Or(c.ListenAddr, defaultListenAddr)
	c.StopTimeout = cmp.Or(c.StopTimeout, defaultStopTimeout)
	c.Logger = logging.Or(c.Logger)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Service == "":
		return valid.Field("app.Config.Service", "missing")
	case c.Pool == nil && c.Database == nil:
		return valid.Field("app.Config.Database", "missing: set Database, or Pool if the application has a pool")
	case c.Pool != nil && c.Database != nil:
		return valid.Field("app.Config.Database", "set besides Pool: want one of them")
	case !isListenAddress(c.ListenAddr):
		return valid.Fieldf("app.Config.ListenAddr", "%q: want [host]:port", c.ListenAddr)
	case c.StopTimeout < 0:
		return valid.Fieldf("app.Config.StopTimeout", "%v: want more than 0", c.StopTimeout)
	}
	return nil
}

// topics returns Topics with the topic of sagas' timeouts, or none if Topics is empty.
func (c Config) topics() []broker.Topic { return assembly.Topics(c.Topics, c.Saga.TimeoutTopic) }
