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

// Broker is what a scheduler needs of a broker. See package broker for the contract.
type Broker interface {
	Schedule(ctx context.Context, m broker.Message, at time.Time) (broker.Timer, error)
	Horizon() time.Duration
	Send(ctx context.Context, m broker.Message) (broker.Receipt, error)
}

// Config configures a Scheduler.
type Config struct {
	Pool   *pgxpool.Pool // required; for what the scheduler does on its own. The caller's transactions may come from elsewhere
	Broker Broker        // required
	Source string        // required: the service's name, as the events' Source

	Schema string // of rocketflow's tables; default rocketflow.DefaultSchema

	// Horizon is how far ahead a timeout is handed to the broker. Default: 24 hours, or less if the broker reaches less
	// far. A short horizon saves messages for timeouts that are disarmed before it, and has the sweep do the work.
	Horizon time.Duration

	// SweepInterval is the pause between two looks at what waits to be handed over. Default 1s.
	SweepInterval time.Duration

	// Grace is how long the sweep leaves a timeout to others: to the process that armed it, to hand it over; and once it
	// is due, to the broker and the consumer. Then the sweep hands it over, or sends it. Default 5s.
	Grace time.Duration

	// Resend is how long an overdue timeout that was sent by the sweep waits until it is sent again. The wait doubles with
	// each time, up to six hours. Default 30s.
	Resend time.Duration

	// StuckAfter is how long a timeout is overdue, although it was sent ten times, until it is reported as stuck. From then
	// on it is sent once a day. Default 24h.
	StuckAfter time.Duration

	Workers    int           // requests to the broker at a time; default 8
	MaxPending int           // timeouts in memory on their way to the broker; what exceeds it waits for the sweep. Default 4096
	SweepBatch int           // rows that the sweep takes at a time; default 256
	SendTime   time.Duration // how long a request to the broker may take; default 5s
	MaxBody    int           // largest encoded body of an event in bytes; default 1 MiB

	// Clock times the pause between two sweeps; what is due then is for Postgres to say. Default: the machine's.
	Clock    rocketflow.Clock
	Listener Listener
	Logger   *slog.Logger // default: warnings and errors go to stderr
}

const defaultHorizon = 24 * time.Hour

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	if c.Broker != nil {
		c.Horizon = cmp.Or(c.Horizon, min(c.Broker.Horizon(), defaultHorizon))
	}
	c.SweepInterval = cmp.Or(c.SweepInterval, time.Second)
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.Resend = cmp.Or(c.Resend, 30*time.Second)
	c.StuckAfter = cmp.Or(c.StuckAfter, 24*time.Hour)
	c.Workers = cmp.Or(c.Workers, 8)
	c.MaxPending = cmp.Or(c.MaxPending, 4096)
	c.SweepBatch = cmp.Or(c.SweepBatch, 256)
	c.SendTime = cmp.Or(c.SendTime, 5*time.Second)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("Pool", "missing")
	case c.Broker == nil:
		return valid.Field("Broker", "missing")
	case c.Horizon < 0 || c.Horizon > c.Broker.Horizon():
		return valid.Fieldf("Horizon", "%v: the broker reaches %v ahead", c.Horizon, c.Broker.Horizon())
	}
	if err := wire.ValidateSource("Source", c.Source); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"SweepInterval", int64(c.SweepInterval)}, {"Grace", int64(c.Grace)}, {"Resend", int64(c.Resend)},
		{"StuckAfter", int64(c.StuckAfter)}, {"Workers", int64(c.Workers)},
		{"MaxPending", int64(c.MaxPending)}, {"SweepBatch", int64(c.SweepBatch)}, {"SendTime", int64(c.SendTime)},
		{"MaxBody", int64(c.MaxBody)},
	} {
		if f.value < 0 {
			return valid.Field(f.name, "negative")
		}
	}
	return nil
}
