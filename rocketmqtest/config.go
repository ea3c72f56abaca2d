package rocketmqtest

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Clock is the machine's clock plus an offset that only grows, see [Server.FastForward]. It implements rocketflow.Clock.
type Clock = clock.Virtual

// Version is the version of RocketMQ whose behaviour the broker shows where versions differ.
type Version int

const (
	// RocketMQ53 is 5.3.3.
	RocketMQ53 Version = iota
	// RocketMQ49 is 4.9.7: it has no timers, and its default interval between checks is twice as long.
	RocketMQ49
	// RocketMQ55 is 5.5.0: timers are deleted by another key, and a committed message has fewer properties.
	RocketMQ55
)

// ordinal returns the number of the version in the protocol, by which clients choose their requests.
func (v Version) ordinal() int {
	switch v {
	case RocketMQ49:
		return 407
	case RocketMQ55:
		return remoting.Version550
	}
	return remoting.Version
}

// description returns the name of the version as a broker says it.
func (v Version) description() string {
	switch v {
	case RocketMQ49:
		return "V4_9_7"
	case RocketMQ55:
		return "V5_5_0"
	}
	return "V5_3_3"
}

// Config configures a [Server]. The zero value is RocketMQ 5.3.3 with its default settings, except that topics are not
// created automatically.
type Config struct {
	// Addr and BrokerAddr are the addresses on which the name server and the broker listen. They must be on loopback.
	// Defaults to free ports of 127.0.0.1.
	Addr, BrokerAddr string

	// Name is the name of the broker.
	// Defaults to "broker-a".
	Name string

	// Version is the version of RocketMQ to behave as.
	// Defaults to RocketMQ53.
	Version Version

	// Proxy starts a proxy in front of the name server and the broker, like RocketMQ's own of version 5 on its remoting port, at
	// [Server.ProxyAddr]. It serves fewer requests, forwards none that doesn't name the broker, takes messages of the topic's type only,
	// and drops ends of half messages, to which it responds with success. What clients send to Addr and BrokerAddr passes it by.
	Proxy bool

	// DMS makes scheduled messages work as in Huawei Cloud's DMS: by the properties __STARTDELIVERTIME and
	// __CANCEL_SCHEDULED_MSG instead of RocketMQ's timer properties.
	DMS bool

	// Credentials maps the access key of each administrator, who may do anything, to its secret. With an administrator or one of Users,
	// requests to the broker or the proxy that nobody of them has signed are refused.
	// Defaults to no authentication.
	Credentials map[string]string

	// Users are users who may do what they have grants for: with it, tests show that a service needs no more than it was given. Refusals
	// are those of ACL 2.0, with RocketMQ49 those of ACL 1.0.
	// Defaults to no users besides those of Credentials.
	Users []User

	// TLS makes the name server and the broker take TLS connections only, as a real one with tls.server.mode=enforcing does. It
	// needs a certificate: see Certificates or GetCertificate of [tls.Config]. With ClientCAs and ClientAuth clients need one, too.
	// Defaults to connections without TLS.
	TLS *tls.Config

	// AutoCreateTopics creates a topic with four queues when a message is sent to it.
	// Defaults to false, unlike in a real broker.
	AutoCreateTopics bool

	// MaxMessageSize is the maximum size of a body in bytes.
	// Defaults to 4 MiB.
	MaxMessageSize int

	// MaxBytes is the maximum size of all stored messages in bytes. Beyond it the oldest are deleted, whether read or not.
	// Defaults to 256 MiB.
	MaxBytes int

	// TransactionTimeout is the age at which a half message is checked for the first time.
	// Defaults to 6 s.
	TransactionTimeout time.Duration
	// CheckInterval is the time between two rounds of check-backs.
	// Defaults to 30 s, or 60 s for RocketMQ49.
	CheckInterval time.Duration
	// CheckMax is the number of check-backs after which a half message is discarded.
	// Defaults to 15.
	CheckMax int
	// OpBatchInterval is how long the marker that a transaction has ended may stay in memory only, where LoseMarkers loses it.
	// Defaults to 3 s.
	OpBatchInterval time.Duration

	// TimerPrecision is the length of a slot of the timer wheel: a timer may be late by it.
	// Defaults to 1 s.
	TimerPrecision time.Duration
	// TimerMaxDelay is the maximum time until a timer fires. Longer ones are refused.
	// Defaults to 72 h.
	TimerMaxDelay time.Duration
	// NoTimers makes the broker refuse timers, as one whose timer wheel is disabled. RocketMQ49 implies it.
	NoTimers bool

	// DelayLevels are the delays of the levels of delayed messages and of retries.
	// Defaults to 1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h.
	DelayLevels []time.Duration

	// FlushInterval is how long a message may stay in memory only, where LoseUnflushed loses it.
	// Defaults to 500 ms.
	FlushInterval time.Duration

	// OffsetFlushInterval is how long the offsets of groups and the progress of timers and delay levels may stay in memory
	// only, where LoseMemory loses them.
	// Defaults to 5 s.
	OffsetFlushInterval time.Duration

	// LockExpiry is how long a consumer holds the lock of a queue without renewing it.
	// Defaults to 60 s.
	LockExpiry time.Duration

	// Seed is the seed of the broker's random choices.
	// Defaults to 1.
	Seed uint64

	// Clock is the server's clock. Set it to share one clock between servers, or with an application.
	// Defaults to a new clock.
	Clock *Clock

	// Logger receives the broker's log.
	// Defaults to a logger that discards everything.
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

// validate checks a Config that has its defaults. An error is a *rocketflow.FieldError.
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
			return field(name, "%s is not a loopback address: this broker serves only its own machine", address)
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
	if t := c.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return field("TLS", "has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	}
	for i, u := range c.Users {
		_, twice := c.Credentials[u.Name]
		if twice = twice || slices.ContainsFunc(c.Users[:i], func(other User) bool { return other.Name == u.Name }); twice || u.Name == "" {
			return field("Users", "name %q: want one that no other user has", u.Name)
		}
		for _, g := range u.Grants {
			if problem := g.problem(c.Version); problem != "" {
				return field("Users", "user %s: %s", u.Name, problem)
			}
		}
	}
	switch {
	case c.Version < RocketMQ53 || c.Version > RocketMQ55:
		return field("Version", "%d: want RocketMQ49, RocketMQ53 or RocketMQ55", c.Version)
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
