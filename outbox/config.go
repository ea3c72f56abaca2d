package outbox

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Broker is the part of a message broker that an outbox uses. *rocketmq.Client implements it.
type Broker interface {
	broker.TransactionProducerOpener
	broker.Subscriber // for the missing-events requests of consumers
	Send(ctx context.Context, m broker.Message) (broker.Receipt, error)
	// SendGroup sends messages in one request, as broker.Sender does.
	SendGroup(ctx context.Context, ms []broker.Message) []error
	// Shard returns a number for a sharding key: messages of a topic whose keys have the same number can share a request of
	// SendGroup, as far as is known now. It must not block.
	Shard(topic, shardingKey string) int
	VerifyTopics(ctx context.Context, topics ...string) error
}

// Config configures an Outbox. Pool, Broker and Source are required; other fields that are zero take their defaults.
type Config struct {
	// Pool connects to the primary server of the application's database. On a replica check-backs can't be decided. Required.
	Pool *pgxpool.Pool

	// Broker takes the events. Required.
	Broker Broker

	// Source is the name of the service, a URI reference. It is the source attribute of its events and a part of their
	// streams' names. All processes of a service use the same source and the same database. Required.
	Source string

	// Schema is the schema of rocketflow's tables.
	// Defaults to rocketflow.DefaultSchema.
	Schema string

	// Group is the producer group. The broker checks back with any of its members, so all of them must use the same database.
	// Defaults to Source, with a hyphen for each character that a group's name can't have.
	Group string

	// Topics are the topics that may be published to: Start verifies that they exist, and Publish refuses others.
	// Defaults to any topic; then an event of a topic that doesn't exist is owed until it does.
	Topics []string

	// HalfTimeout is how long Commit waits for half messages, with the rows of its streams locked.
	// Defaults to 500 ms.
	HalfTimeout time.Duration

	// EndTimeout is how long Commit waits for the broker to confirm the commits of half messages, after Postgres has
	// committed.
	// Defaults to 500 ms.
	EndTimeout time.Duration

	// MaxTransaction is how long a transaction may be open before check-backs of its half messages are decided with rollback.
	// Events of transactions that commit later are sent by the sweep.
	// Defaults to 5 min.
	MaxTransaction time.Duration

	// MaxBody is the size limit of an encoded body, in bytes; Publish refuses larger ones. It must be below the broker's
	// maxMessageSize (4 MiB unless it is configured otherwise).
	// Defaults to 1 MiB.
	MaxBody int

	// Path says how events reach the broker: by half messages or by the relay. With a broker without half messages Auto is Relay, and
	// Start refuses HalfMessages.
	// Defaults to Auto.
	Path Path

	// MaxHalfMessages is the maximum number of events in flight with which Auto chooses the half-message path for a
	// transaction. In flight are the transaction's own events, those of other commits, those whose half messages are not
	// ended, and those in requests of the relay.
	// Defaults to 4.
	MaxHalfMessages int

	// RelayBuffer is the maximum number of events that the relay holds in memory. Further events are read back from Postgres
	// when there is room.
	// Defaults to 4096.
	RelayBuffer int

	// RelayBytes is the maximum size of the bodies that the relay holds in memory, in bytes.
	// Defaults to 64 MiB.
	RelayBytes int

	// RelayGroup is the maximum number of events that the relay sends in one request.
	// Defaults to 64.
	RelayGroup int

	// RelayWorkers is the maximum number of concurrent requests of the relay, each to another queue.
	// Defaults to 4.
	RelayWorkers int

	// RelayPace is the minimum time between two requests of the relay to the same queue, unless RelayGroup events wait for
	// it. Under load it makes events gather, so that the broker and the consumers get fewer requests. A negative pace doesn't
	// wait.
	// Defaults to 5 ms.
	RelayPace time.Duration

	// SweepInterval is the time between two passes of the sweep.
	// Defaults to 1 s.
	SweepInterval time.Duration

	// SweepGrace is the minimum age of an owed event that the sweep sends: until then its half message, or the relay, usually
	// sends it. It must be longer than HalfTimeout.
	// Defaults to 5 s.
	SweepGrace time.Duration

	// SweepPage is how many rows the sweep reads at a time.
	// Defaults to 1000.
	SweepPage int

	// DrainRate is how many events the sweep sends in a second, so that a broker that was away is not overloaded; new events
	// don't wait for it. A negative rate is unlimited.
	// Defaults to 2000.
	DrainRate int

	// MaxBacklog is how many events may be owed. Beyond it Publish returns a *rocketflow.BackpressureError, in all processes
	// within a second or two, until a fifth is drained. A negative number is unlimited.
	// Defaults to 100,000.
	MaxBacklog int

	// MaxRejected is how many events of one topic may be owed that the broker rejects, because a topic or a right is missing
	// or an event is too large. Beyond it Publish returns a *rocketflow.BackpressureError that names the topic, for events of
	// that topic only. Rejected events don't count against MaxBacklog. A negative number is unlimited.
	// Defaults to 10,000, or to MaxBacklog if that is less.
	MaxRejected int

	// IgnoreDiscarded turns off the consumer that reports half messages which the broker gave up (Listener.Discarded). That
	// consumer runs if Broker is a DiscardReader, in the group Group + "_discarded", once the broker has given up a first
	// half message.
	IgnoreDiscarded bool

	// Retention is how long acknowledged events are kept, in whole days; at least one day.
	// Defaults to 7 days.
	Retention time.Duration

	// StreamRetention is how long the last sequence of an idle stream is kept. It must be at least a day longer than
	// Retention. The next event of a stream begins a new chain then, and consumers that miss the end of the old chain don't
	// notice.
	// Defaults to twice Retention.
	StreamRetention time.Duration

	// AuditRetention is how long the entries of the schema's audit, of what operators have changed, are kept; at least one day.
	// Negative: until they are deleted by hand, as for a role without the right to delete them.
	// Defaults to 365 days.
	AuditRetention time.Duration

	// ResendLimit is how many events are sent again for one missing-events request of a consumer.
	// Defaults to 1000.
	ResendLimit int

	// ResendRate is how many events are sent again in a second for such requests. A negative rate turns resends off.
	// Defaults to 1000.
	ResendRate float64

	// ResendBytes is how many bytes of events are sent again for one request (but at least one event), and in a second for
	// one requester. It bounds what a user with the right to publish to rocketflow.MissingEventsTopic can make the publisher
	// send.
	// Defaults to 1 MiB.
	ResendBytes int

	// OnPublish is called by Publish with each event that it accepts, and the context of the call, before the event is recorded.
	// It may set Extensions and Headers, as package tracing does; it must replace the maps instead of changing them. It must be
	// quick. A result that can't be published is an error of Publish.
	// Defaults to none.
	OnPublish func(ctx context.Context, e *rocketflow.Event)

	// Clock gives the ids of events their time, and times the pauses of background work; Postgres' clock decides what is due.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock

	// Listener is called when something happens to events, for metrics and tests.
	// Defaults to none.
	Listener *Listener

	// Logger gets warnings and errors that operators should see.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Group = cmp.Or(c.Group, valid.GroupName(c.Source))
	c.HalfTimeout = cmp.Or(c.HalfTimeout, 500*time.Millisecond)
	c.EndTimeout = cmp.Or(c.EndTimeout, 500*time.Millisecond)
	c.MaxTransaction = cmp.Or(c.MaxTransaction, 5*time.Minute)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	c.RelayBuffer = cmp.Or(c.RelayBuffer, 4096)
	c.RelayBytes = cmp.Or(c.RelayBytes, 64<<20)
	c.RelayGroup = cmp.Or(c.RelayGroup, 64)
	c.RelayWorkers = cmp.Or(c.RelayWorkers, 4)
	c.RelayPace = cmp.Or(c.RelayPace, 5*time.Millisecond)
	c.MaxHalfMessages = cmp.Or(c.MaxHalfMessages, 4)
	c.SweepInterval = cmp.Or(c.SweepInterval, time.Second)
	c.SweepGrace = cmp.Or(c.SweepGrace, 5*time.Second)
	c.SweepPage = cmp.Or(c.SweepPage, 1000)
	c.DrainRate = cmp.Or(c.DrainRate, 2000)
	c.MaxBacklog = cmp.Or(c.MaxBacklog, 100_000)
	if c.MaxRejected == 0 {
		c.MaxRejected = 10_000
		if c.MaxBacklog > 0 {
			c.MaxRejected = min(c.MaxRejected, c.MaxBacklog)
		}
	}
	c.Retention = cmp.Or(c.Retention, 7*24*time.Hour)
	c.StreamRetention = cmp.Or(c.StreamRetention, 2*c.Retention)
	c.AuditRetention = cmp.Or(c.AuditRetention, 365*24*time.Hour)
	c.ResendLimit = cmp.Or(c.ResendLimit, 1000)
	c.ResendRate = cmp.Or(c.ResendRate, 1000)
	c.ResendBytes = cmp.Or(c.ResendBytes, 1<<20)
	c.Logger = logging.Or(c.Logger)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	return c
}

// ConsumerGroups returns the consumer groups of the outbox, which receive missing-events requests and, if half messages are used, those
// that the broker gave up. Source or Group must be set.
func (c Config) ConsumerGroups(halfMessages bool) []string {
	c = c.withDefaults()
	var groups []string
	if c.ResendRate >= 0 {
		groups = append(groups, c.Group+resendSuffix)
	}
	if halfMessages && !c.IgnoreDiscarded {
		groups = append(groups, c.Group+discardedSuffix)
	}
	return groups
}

// Suffixes of the groups of ConsumerGroups.
const (
	resendSuffix    = "_resend"
	discardedSuffix = "_discarded"
)

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("outbox.Config.Pool", "missing")
	case c.Broker == nil:
		return valid.Field("outbox.Config.Broker", "missing")
	case c.Retention < 24*time.Hour:
		return valid.Fieldf("outbox.Config.Retention", "%v: want at least a day", c.Retention)
	case c.AuditRetention >= 0 && c.AuditRetention < 24*time.Hour:
		return valid.Fieldf("outbox.Config.AuditRetention", "%v: want at least a day, or less than 0 to keep all", c.AuditRetention)
	}
	if err := wire.ValidateSource("outbox.Config.Source", c.Source); err != nil {
		return err
	}
	if c.Path < Auto || c.Path > Relay {
		return valid.Fieldf("outbox.Config.Path", "%d: want Auto, HalfMessages or Relay", c.Path)
	}
	if c.StreamRetention < c.Retention+24*time.Hour {
		return valid.Fieldf("outbox.Config.StreamRetention", "%v: want at least a day more than Retention (%v)", c.StreamRetention, c.Retention)
	}
	if c.SweepGrace <= c.HalfTimeout {
		return valid.Fieldf("outbox.Config.SweepGrace", "%v: want more than HalfTimeout (%v), so that the sweep doesn't send what is in flight", c.SweepGrace, c.HalfTimeout)
	}
	for name, d := range map[string]time.Duration{
		"HalfTimeout": c.HalfTimeout, "EndTimeout": c.EndTimeout, "MaxTransaction": c.MaxTransaction,
		"SweepInterval": c.SweepInterval, "SweepGrace": c.SweepGrace,
	} {
		if d <= 0 {
			return valid.Fieldf("outbox.Config."+name, "%v: want more than 0", d)
		}
	}
	for name, n := range map[string]int{
		"MaxBody": c.MaxBody, "RelayBuffer": c.RelayBuffer, "RelayBytes": c.RelayBytes, "RelayWorkers": c.RelayWorkers, "RelayGroup": c.RelayGroup, "MaxHalfMessages": c.MaxHalfMessages, "SweepPage": c.SweepPage, "ResendLimit": c.ResendLimit, "ResendBytes": c.ResendBytes,
	} {
		if n <= 0 {
			return valid.Fieldf("outbox.Config."+name, "%d: want more than 0", n)
		}
	}
	return nil
}
