package doctor

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Config configures a [Doctor].
type Config struct {
	// Databases are examined.
	// Defaults to none: then all checks of them give Unknown.
	Databases []Database

	// Broker is the RocketMQ that is examined.
	// Defaults to none: then all checks of it give Unknown.
	Broker *Broker

	// Pre is for servers on which rocketflow isn't installed yet: only checks run that need no tables.
	Pre bool

	// Probe allows checks that send something: see the package documentation.
	Probe bool

	// Only and Skip select checks by their codes or groups.
	// Defaults to all checks.
	Only, Skip []string

	// Expect is what the examined services are configured with, and what their operator expects of them.
	Expect Expect

	// Sagas returns the versions of saga definitions that this process registers, unless Expect.Sagas has those of all processes. It is
	// called at each examination, because they are registered after the doctor is made. Of a saga that it doesn't name nothing is known.
	// Defaults to none: the check of the versions gives Unknown.
	Sagas func() []SagaVersion

	// CheckTimeout bounds each check of one subject.
	// Defaults to 5 s.
	CheckTimeout time.Duration
	// Timeout bounds the whole examination. Checks that it leaves no time give Unknown.
	// Defaults to 1 min.
	Timeout time.Duration

	// Interval is the time between two examinations of a started Doctor. At least 10 s.
	// Defaults to 5 min.
	Interval time.Duration
	// Examined is called after each examination of a started Doctor. It must not block for long.
	// Defaults to none.
	Examined func(*Report)
	// Logger gets the findings of a started Doctor that are new or gone.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
	// Clock times a started Doctor's pauses. Checks read the clocks that they compare themselves.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock

	oldestVersion int // of PostgreSQL, in tests: at least this one
	mostSagas     int // that are looked at of one state, in tests; 0: 100,000
}

// Database is a database with schemas of rocketflow.
type Database struct {
	// Pool connects to it. Required. An examination uses at most 4 of its connections at a time. Whoever made the pool closes it.
	Pool *pgxpool.Pool
	// Name is how results call it.
	// Defaults to host:port/database.
	Name string
	// Schemas are examined.
	// Defaults to all schemas of the database that have rocketflow's tables.
	Schemas []string
	// Role is the role of the running service, whose rights are examined.
	// Defaults to the pool's role.
	Role string
	// ProducerGroup is outbox.Config.Group of the service.
	// Defaults to the group that is named after the service.
	ProducerGroup string
	// PoolSize is the maximum number of connections of one process of the service.
	// Defaults to 0: it is not known.
	PoolSize int
}

// Broker is how a RocketMQ is reached. The fields are those of rocketmq.Config.
type Broker struct {
	NameServers          []string // host:port. Required.
	AccessKey, SecretKey string
	TLS                  *tls.Config
	Namespace            string
	// Unlisted is why the cluster can't be asked for its brokers, as rocketmq.Profile.RefusesListing returns it: NameServers are then those
	// of a proxy or a cloud. Checks of brokers give Unknown, and what can be looked at instead.
	// Defaults to nil: the cluster can be asked.
	Unlisted error
}

// Expect is what services are configured with. A doctor doesn't see the configuration of a process; give values that differ from
// the defaults of packages outbox, handlers, timeout and rocketmq.
type Expect struct {
	// MaxTransaction is outbox.Config.MaxTransaction.
	// Defaults to 5 min.
	MaxTransaction time.Duration
	// MaxIdle is how long a transaction may be open without a statement.
	// Defaults to 1 min.
	MaxIdle time.Duration
	// HalfTimeout is outbox.Config.HalfTimeout.
	// Defaults to 500 ms.
	HalfTimeout time.Duration
	// MaxBacklog is outbox.Config.MaxBacklog.
	// Defaults to 100,000.
	MaxBacklog int64
	// MaxBody is outbox.Config.MaxBody.
	// Defaults to 1 MiB.
	MaxBody int
	// OutboxRetention is outbox.Config.Retention.
	// Defaults to 7 days.
	OutboxRetention time.Duration
	// AuditRetention is outbox.Config.AuditRetention. If it is negative, the service needs no right to delete from the audit.
	AuditRetention time.Duration
	// TimerHorizon is rocketmq.Config.TimerHorizon.
	// Defaults to 71 h.
	TimerHorizon time.Duration
	// Lanes is handlers.Config.Lanes.
	// Defaults to 8.
	Lanes int

	// MaxAway is how long a consumer may be stopped without losing events.
	// Defaults to 24 h.
	MaxAway time.Duration
	// MaxOwed is the age of the oldest owed event, MaxLag that of the oldest event that a consumer has not handled, and MaxOverdue
	// that of the oldest timeout that is due, at which something is wrong.
	// Defaults to 1 min, 5 min and 1 min.
	MaxOwed, MaxLag, MaxOverdue time.Duration
	// MaxParked is how long an event may be parked before it is a finding.
	// Defaults to 1 h.
	MaxParked time.Duration
	// MaxIdleSaga is how long a running saga without a deadline may stay in one state.
	// Defaults to 7 days.
	MaxIdleSaga time.Duration
	// MaxSkew is how far two clocks may be apart.
	// Defaults to 1 s.
	MaxSkew time.Duration

	// Sagas are the versions of saga definitions that processes register, all of them.
	// Defaults to none: see Config.Sagas.
	Sagas []SagaVersion
}

// SagaVersion is a version of a saga's definition.
type SagaVersion struct {
	Name    string
	Version int
}

// maxSagas returns how many sagas of one state are looked at.
func (c Config) maxSagas() int { return cmp.Or(c.mostSagas, 100_000) }

func (c Config) withDefaults() Config {
	c.CheckTimeout = cmp.Or(c.CheckTimeout, 5*time.Second)
	c.Timeout = cmp.Or(c.Timeout, time.Minute)
	c.Interval = cmp.Or(c.Interval, 5*time.Minute)
	c.Logger = logging.Or(c.Logger)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Expect = c.Expect.withDefaults()
	return c
}

func (e Expect) withDefaults() Expect {
	e.MaxTransaction = cmp.Or(e.MaxTransaction, 5*time.Minute)
	e.MaxIdle = cmp.Or(e.MaxIdle, time.Minute)
	e.HalfTimeout = cmp.Or(e.HalfTimeout, 500*time.Millisecond)
	e.MaxBacklog = cmp.Or(e.MaxBacklog, 100_000)
	e.MaxBody = cmp.Or(e.MaxBody, 1<<20)
	e.OutboxRetention = cmp.Or(e.OutboxRetention, 7*24*time.Hour)
	e.TimerHorizon = cmp.Or(e.TimerHorizon, 71*time.Hour)
	e.Lanes = cmp.Or(e.Lanes, 8)
	e.MaxAway = cmp.Or(e.MaxAway, 24*time.Hour)
	e.MaxOwed = cmp.Or(e.MaxOwed, time.Minute)
	e.MaxLag = cmp.Or(e.MaxLag, 5*time.Minute)
	e.MaxOverdue = cmp.Or(e.MaxOverdue, time.Minute)
	e.MaxParked = cmp.Or(e.MaxParked, time.Hour)
	e.MaxIdleSaga = cmp.Or(e.MaxIdleSaga, 7*24*time.Hour)
	e.MaxSkew = cmp.Or(e.MaxSkew, time.Second)
	return e
}

func (c Config) validate() error {
	for _, d := range c.Databases {
		switch {
		case d.Pool == nil:
			return valid.Field("doctor.Config.Databases.Pool", "missing")
		case d.PoolSize < 0:
			return valid.Fieldf("doctor.Config.Databases.PoolSize", "%d: want more than 0", d.PoolSize)
		case slices.Contains(d.Schemas, ""):
			return valid.Field("doctor.Config.Databases.Schemas", "has an empty name")
		}
	}
	if b := c.Broker; b != nil {
		if len(b.NameServers) == 0 {
			return valid.Field("doctor.Config.Broker.NameServers", "missing: want host:port")
		}
		for _, address := range b.NameServers {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
				return valid.Fieldf("doctor.Config.Broker.NameServers", "%q: want host:port", address)
			}
		}
		if (b.AccessKey == "") != (b.SecretKey == "") {
			return valid.Field("doctor.Config.Broker.SecretKey", "set AccessKey and SecretKey, or neither")
		}
	}
	for field, names := range map[string][]string{"Only": c.Only, "Skip": c.Skip} {
		for _, name := range names {
			if !slices.ContainsFunc(all, func(k check) bool { return k.named(name) }) {
				return valid.Fieldf("doctor.Config."+field, "%q is neither a check nor a group", name)
			}
		}
	}
	for field, d := range map[string]time.Duration{
		"CheckTimeout": c.CheckTimeout, "Timeout": c.Timeout, "Expect.MaxTransaction": c.Expect.MaxTransaction,
		"Expect.MaxIdle": c.Expect.MaxIdle, "Expect.HalfTimeout": c.Expect.HalfTimeout, "Expect.OutboxRetention": c.Expect.OutboxRetention, "Expect.TimerHorizon": c.Expect.TimerHorizon,
		"Expect.MaxAway": c.Expect.MaxAway, "Expect.MaxOwed": c.Expect.MaxOwed, "Expect.MaxLag": c.Expect.MaxLag,
		"Expect.MaxOverdue": c.Expect.MaxOverdue, "Expect.MaxParked": c.Expect.MaxParked, "Expect.MaxIdleSaga": c.Expect.MaxIdleSaga,
		"Expect.MaxSkew": c.Expect.MaxSkew,
	} {
		if d <= 0 {
			return valid.Fieldf("doctor.Config."+field, "%v: want more than 0", d)
		}
	}
	if c.Interval < 10*time.Second {
		return valid.Fieldf("doctor.Config.Interval", "%v: want at least 10s", c.Interval)
	}
	return nil
}

// runs reports whether the configuration selects a check.
func (c Config) runs(k check) bool {
	if c.Pre && !k.Pre || k.probe && !c.Probe || slices.ContainsFunc(c.Skip, k.named) {
		return false
	}
	return len(c.Only) == 0 || slices.ContainsFunc(c.Only, k.named)
}
