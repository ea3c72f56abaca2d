package rocketmqtest

import (
	"cmp"
	"log/slog"
	"net"
	"time"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Clock is the machine's clock plus an offset that only grows: see [Server.FastForward]. It is a rocketflow.Clock.
type Clock = clock.Virtual

// Version says which RocketMQ to be where they differ.
type Version int

const (
	RocketMQ53 Version = iota // 5.3.3
	RocketMQ49                // 4.9.7: no timers, and checks by default twice as far apart
	RocketMQ55                // 5.5.0: timers are deleted by another key, and a committed message has fewer properties
)

// ordinal is the version's number in the protocol: clients go by it.
func (v Version) ordinal() int {
	switch v {
	case RocketMQ49:
		return 407
	case RocketMQ55:
		return 513
	}
	return remoting.Version
}

// Config says how the broker behaves. The zero value is RocketMQ 5.3.3 with the settings that it comes with.
type Config struct {
	// Addr and BrokerAddr are where the name server and the broker listen. Default: free ports of 127.0.0.1.
	Addr, BrokerAddr string

	// Name of the broker. Default "broker-a".
	Name string

	Version Version

	// DMS makes scheduled messages those of Huawei's DMS: __STARTDELIVERTIME and __CANCEL_SCHEDULED_MSG instead of the
	// timer properties.
	DMS bool

	// Credentials are the users, a secret for each access key. Default: anybody may do anything.
	Credentials map[string]string

	// AutoCreateTopics makes a topic of four queues appear when someone sends to it. (Here the default is off.)
	AutoCreateTopics bool

	// MaxMessageSize is the largest body in bytes. Default 4 MiB.
	MaxMessageSize int

	// MaxBytes bounds what is kept in memory; the oldest messages go first, read or not. Default 256 MiB.
	MaxBytes int

	// TransactionTimeout is how old a half message is when it is first checked. Default 6 s.
	TransactionTimeout time.Duration
	// CheckInterval lies between two rounds of checks. Default 30 s (4.9: 60 s).
	CheckInterval time.Duration
	// CheckMax is how many checks a half message gets before it is thrown away. Default 15.
	CheckMax int
	// OpBatchInterval is how long the mark that a transaction has ended stays in memory only. Default 3 s.
	OpBatchInterval time.Duration

	// TimerPrecision divides time for timers; one may be late by this. Default 1 s.
	TimerPrecision time.Duration
	// TimerMaxDelay is how far ahead a timer may be. Default 72 h.
	TimerMaxDelay time.Duration
	// NoTimers refuses timers, as a broker does whose timer wheel is switched off.
	NoTimers bool

	// DelayLevels are those of delayed messages, and of retries. Default 1s 5s 10s 30s 1m 2m … 10m 20m 30m 1h 2h.
	DelayLevels []time.Duration

	// FlushInterval is for how long a message may be in memory only, what a power failure loses. Default 500 ms.
	FlushInterval time.Duration

	// OffsetFlushInterval is for how long the offsets of groups, and the positions of timers and delayed messages, may be in
	// memory only, what a kill loses. Default 5 s.
	OffsetFlushInterval time.Duration

	// LockExpiry is how long a consumer keeps a queue's lock without renewing it. Default 60 s.
	LockExpiry time.Duration

	// Seed makes all that the broker draws by lot repeatable. Default 1.
	Seed uint64

	// Clock is for sharing one between servers, or with the application. Default: one of its own.
	Clock *Clock

	// Logger tells what a broker would write to its log. Default: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Addr = cmp.Or(c.Addr, "127.0.0.1:0")
	c.BrokerAddr = cmp.Or(c.BrokerAddr, "127.0.0.1:0")
	c.Name = cmp.Or(c.Name, "broker-a")
	c.MaxMessageSize = cmp.Or(c.MaxMessageSize, 4<<20)
	c.MaxBytes = cmp.Or(c.MaxBytes, 256<<20)
	c.TransactionTimeout = cmp.Or(c.TransactionTimeout, 6*time.Second)
	interval := 30 * time.Second
	if c.Version == RocketMQ49 {
		interval = time.Minute
		c.NoTimers = true
	}
	c.CheckInterval = cmp.Or(c.CheckInterval, interval)
	c.CheckMax = cmp.Or(c.CheckMax, 15)
	c.OpBatchInterval = cmp.Or(c.OpBatchInterval, 3*time.Second)
	c.TimerPrecision = cmp.Or(c.TimerPrecision, time.Second)
	c.TimerMaxDelay = cmp.Or(c.TimerMaxDelay, 72*time.Hour)
	if c.DelayLevels == nil {
		c.DelayLevels = defaultDelayLevels
	}
	c.FlushInterval = cmp.Or(c.FlushInterval, 500*time.Millisecond)
	c.OffsetFlushInterval = cmp.Or(c.OffsetFlushInterval, 5*time.Second)
	c.LockExpiry = cmp.Or(c.LockExpiry, time.Minute)
	c.Seed = cmp.Or(c.Seed, 1)
	if c.Clock == nil {
		c.Clock = new(Clock)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

var defaultDelayLevels = []time.Duration{
	1 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute, 6 * time.Minute,
	7 * time.Minute, 8 * time.Minute, 9 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute,
	1 * time.Hour, 2 * time.Hour,
}

// validate is called on a Config with defaults.
func (c Config) validate() error {
	field := func(name, format string, args ...any) error {
		return valid.Fieldf("rocketmqtest.Config."+name, format, args...)
	}
	for name, address := range map[string]string{"Addr": c.Addr, "BrokerAddr": c.BrokerAddr} {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return field(name, "%v", err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return field(name, "%s is not on loopback, and this broker is for this machine alone", address)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"TransactionTimeout", c.TransactionTimeout}, {"CheckInterval", c.CheckInterval}, {"OpBatchInterval", c.OpBatchInterval},
		{"TimerPrecision", c.TimerPrecision}, {"TimerMaxDelay", c.TimerMaxDelay}, {"FlushInterval", c.FlushInterval}, {"OffsetFlushInterval", c.OffsetFlushInterval}, {"LockExpiry", c.LockExpiry},
	} {
		if d.value < time.Millisecond {
			return field(d.name, "%v: want at least 1ms", d.value)
		}
	}
	switch {
	case c.Version < RocketMQ53 || c.Version > RocketMQ55:
		return field("Version", "%d: want V4_9, V5_3 or V5_5", c.Version)
	case c.MaxMessageSize < 1:
		return field("MaxMessageSize", "%d: want at least 1", c.MaxMessageSize)
	case c.MaxBytes < c.MaxMessageSize:
		return field("MaxBytes", "%d: want at least MaxMessageSize, %d", c.MaxBytes, c.MaxMessageSize)
	case c.CheckMax < 1:
		return field("CheckMax", "%d: want at least 1", c.CheckMax)
	case len(c.DelayLevels) == 0:
		return field("DelayLevels", "none: want at least one")
	}
	return nil
}
