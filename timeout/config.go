package timeout

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

// Broker is the part of a message broker that a Scheduler uses. Package broker documents the contract of each method.
// *rocketmq.Client implements it.
type Broker interface {
	// Schedule stores a message that the broker delivers at the given time. After an error that matches broker.ErrRejected the
	// timeout fires from Postgres.
	Schedule(ctx context.Context, m broker.Message, at time.Time) (broker.Timer, error)
	// Horizon returns how far ahead Schedule accepts messages. 0 means that the broker has no timers: timeouts fire from
	// Postgres. It is called for each timeout, and may change while the program runs.
	Horizon() time.Duration
	// SendGroup delivers messages now. It returns nil if all are stored. Otherwise errs[i] is the error of ms[i].
	SendGroup(ctx context.Context, ms []broker.Message) (errs []error)
}

// Config configures a Scheduler. Pool, Broker and Source are required. A zero field takes its default.
type Config struct {
	// Pool runs the scheduler's own statements. The transactions that arm and disarm timeouts may come from another pool of
	// the same database. Required.
	Pool *pgxpool.Pool
	// Broker stores the timers and delivers the events. Required.
	Broker Broker
	// Timers is what delivers the events of timeouts when they are due: BrokerTimers, or PostgresTimers if the broker's timers
	// are not to be used, for example because the topics have a type that excludes them. A broker without timers needs no
	// setting.
	// Defaults to BrokerTimers.
	Timers Timers
	// Source is the name of the service, and the Source of the events of its timeouts. Required.
	Source string
	// Schema is the Postgres schema of rocketflow's tables.
	// Defaults to rocketflow.DefaultSchema.
	Schema string

	// Horizon is how long before its due time a timeout is handed over to the broker. A short horizon saves messages for timeouts
	// that are disarmed early, and leaves more of the work to the sweep. It must not exceed the broker's horizon. It has no
	// meaning for timeouts that fire from Postgres.
	// Defaults to 24 h, or to the broker's horizon if that is shorter.
	Horizon time.Duration

	// SweepInterval is the longest pause between two sweeps, which find the timeouts that have to be handed over or sent. The
	// process that holds the lease of the sweep also sweeps when the next timeout is due; where timeouts fire from Postgres, it
	// looks for the next one at least every 200 ms.
	// Defaults to 1 s.
	SweepInterval time.Duration
	// SweepGrace is how long the sweep leaves a timeout alone: after it was armed, while the arming process hands it over; after
	// it came due, while the broker delivers its event and a consumer handles it; and after it was claimed by a process that may
	// have died.
	// Defaults to 5 s.
	SweepGrace time.Duration
	// SweepPage is the number of rows that one sweep reads at a time.
	// Defaults to 256.
	SweepPage int
	// RetryInterval is the pause after which the sweep sends the event of an overdue timeout for the second time. The pause
	// doubles with each further time, up to six hours. A timeout that fires from Postgres is also sent once after SweepGrace
	// before that.
	// Defaults to 30 s.
	RetryInterval time.Duration
	// StuckAfter is how long a timeout must be overdue, after its event was sent ten times, to be reported as stuck. The event
	// of a stuck timeout is sent once a day.
	// Defaults to 24 h.
	StuckAfter time.Duration

	// Workers is the number of concurrent requests to the broker.
	// Defaults to 8.
	Workers int
	// MaxPending is the number of timeouts that may wait in memory for their hand-over to the broker. The sweep hands over
	// what exceeds it.
	// Defaults to 4096.
	MaxPending int
	// SendTimeout is the longest time that one request to the broker, or one of the scheduler's own transactions, may take.
	// Defaults to 5 s.
	SendTimeout time.Duration
	// MaxBody is the largest encoded body of an event, in bytes.
	// Defaults to 1 MiB.
	MaxBody int

	// OnArm is called with each event that is armed, and the context of the call, before it is stored. It may set Extensions and
	// Headers, as package tracing does; it must replace the maps instead of changing them.
	// Defaults to none.
	OnArm func(ctx context.Context, e *rocketflow.Event)

	// Clock times the pauses between sweeps. Whether a timeout is due is decided by the clock of Postgres.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock
	// Listener observes what happens to timeouts.
	// Defaults to none.
	Listener *Listener
	// Logger receives warnings and errors that operators should see.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

const defaultHorizon = 24 * time.Hour

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Timers = cmp.Or(c.Timers, BrokerTimers)
	if c.Horizon == 0 {
		c.Horizon = defaultHorizon
		if c.Broker != nil && c.Broker.Horizon() > 0 {
			c.Horizon = min(c.Horizon, c.Broker.Horizon())
		}
	}
	c.SweepInterval = cmp.Or(c.SweepInterval, time.Second)
	c.SweepGrace = cmp.Or(c.SweepGrace, 5*time.Second)
	c.SweepPage = cmp.Or(c.SweepPage, 256)
	c.RetryInterval = cmp.Or(c.RetryInterval, 30*time.Second)
	c.StuckAfter = cmp.Or(c.StuckAfter, 24*time.Hour)
	c.Workers = cmp.Or(c.Workers, 8)
	c.MaxPending = cmp.Or(c.MaxPending, 4096)
	c.SendTimeout = cmp.Or(c.SendTimeout, 5*time.Second)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	return c
}

// validate returns a *rocketflow.FieldError for the first field that can't be used.
func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("timeout.Config.Pool", "missing")
	case c.Broker == nil:
		return valid.Field("timeout.Config.Broker", "missing")
	case c.Timers != BrokerTimers && c.Timers != PostgresTimers:
		return valid.Fieldf("timeout.Config.Timers", "%q: want %q or %q", c.Timers, BrokerTimers, PostgresTimers)
	case c.Horizon < 0:
		return valid.Field("timeout.Config.Horizon", "negative")
	}
	// A broker without timers needs no horizon, and one that isn't reached yet may turn out to have none.
	if limit := c.Broker.Horizon(); limit > 0 && c.Horizon > limit {
		return valid.Fieldf("timeout.Config.Horizon", "%v: want 0 to %v, the broker's horizon", c.Horizon, limit)
	}
	if err := wire.ValidateSource("timeout.Config.Source", c.Source); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"SweepInterval", int64(c.SweepInterval)}, {"SweepGrace", int64(c.SweepGrace)}, {"SweepPage", int64(c.SweepPage)},
		{"RetryInterval", int64(c.RetryInterval)}, {"StuckAfter", int64(c.StuckAfter)}, {"Workers", int64(c.Workers)},
		{"MaxPending", int64(c.MaxPending)}, {"SendTimeout", int64(c.SendTimeout)}, {"MaxBody", int64(c.MaxBody)},
	} {
		if f.value < 0 {
			return valid.Field("timeout.Config."+f.name, "negative")
		}
	}
	return nil
}
