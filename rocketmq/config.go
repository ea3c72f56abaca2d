package rocketmq

import (
	"cmp"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Config configures a Client.
type Config struct {
	// NameServers are the addresses, host:port, of the name servers of one RocketMQ. Required. Host names are looked up
	// again from time to time.
	NameServers []string

	// AccessKey and SecretKey sign every request: of producers, consumers and transactions alike. Both or none.
	AccessKey, SecretKey string

	// Service is the name of the program, part of the names under which RocketMQ's tools list its connections. Required;
	// letters, digits, _ and -, at most 64.
	Service string

	// Namespace is put before the names of all topics and groups, so that several installations can share a RocketMQ.
	// Letters, digits, _ and -, at most 48. Default: none.
	Namespace string

	// AwaitBroker makes Open, OpenTransactionProducer, Subscribe, CreateTopics and VerifyTopics succeed while no broker can be
	// reached, and does then what is left to do as soon as one comes; until then Ping and Consumer.Err say what is wrong,
	// and sends fail. What a broker refuses, wrong credentials or a missing topic, is still an error while one is there, and
	// shows in Ping and in the log when it comes later. Default: they fail.
	AwaitBroker bool

	Logger   *slog.Logger // default: warnings and errors go to stderr
	Listener *Listener    // default: none

	// SendTimeout bounds the wait for the answer to a send, in addition to the caller's context. Default 3 s, which is
	// also the longest that the client under us waits.
	SendTimeout time.Duration

	// StopQuietPeriod is how long the queues of a consumer must have been the same when it stops, so that the broker forgets it at
	// once and gives them to others, as its heartbeats have been answered by then. It counts from the consumer's start, too;
	// and none stops around a heartbeat by the clock, half a second in thirty. Default 1 s. Negative: a consumer stops at
	// once, and may stay listed for two minutes; right for brokers that don't do that, such as the one for tests.
	StopQuietPeriod time.Duration

	// MaxAsync is how many sends of SendAsync are in flight at once. Default 256.
	MaxAsync int

	// TimerHorizon is how far ahead Schedule reaches; it must be less than the broker's timerMaxDelaySec. Default: an
	// hour less than the broker's own default of 3 days.
	TimerHorizon time.Duration

	// Clock tells Schedule and Cancel how far ahead an instant is. The broker goes by a clock of its own, which should
	// agree. Default: the machine's.
	Clock rocketflow.Clock

	// Dialect is how the broker takes scheduled messages. Default Apache5.
	Dialect Dialect
}

const (
	defaultSendTimeout     = 3 * time.Second
	defaultStopQuietPeriod = time.Second
	defaultMaxAsync        = 256
	defaultTimerHorizon    = 71 * time.Hour
)

func (c Config) withDefaults() Config {
	c.SendTimeout = cmp.Or(c.SendTimeout, defaultSendTimeout)
	c.StopQuietPeriod = cmp.Or(c.StopQuietPeriod, defaultStopQuietPeriod)
	c.MaxAsync = cmp.Or(c.MaxAsync, defaultMaxAsync)
	c.TimerHorizon = cmp.Or(c.TimerHorizon, defaultTimerHorizon)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	return c
}

var (
	serviceName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	namespaceName = regexp.MustCompile(`^[A-Za-z0-9_-]{0,48}$`)
)

func (c Config) validate() error {
	field := func(name, reason string, args ...any) error {
		return valid.Fieldf("rocketmq.Config."+name, reason, args...)
	}
	if len(c.NameServers) == 0 {
		return field("NameServers", "missing: want host:port")
	}
	for _, address := range c.NameServers {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return field("NameServers", "%q: want host:port", address)
		}
	}
	switch {
	case !serviceName.MatchString(c.Service):
		return field("Service", "%q: want 1 to 64 letters, digits, _ or -", c.Service)
	case !namespaceName.MatchString(c.Namespace):
		return field("Namespace", "%q: want at most 48 letters, digits, _ or -", c.Namespace)
	case (c.AccessKey == "") != (c.SecretKey == ""):
		return field("SecretKey", "set AccessKey and SecretKey, or neither")
	case c.SendTimeout < 0:
		return field("SendTimeout", "%v: want more than 0", c.SendTimeout)
	case c.MaxAsync < 0:
		return field("MaxAsync", "%d: want more than 0", c.MaxAsync)
	case c.TimerHorizon < 0:
		return field("TimerHorizon", "%v: want more than 0", c.TimerHorizon)
	case c.Dialect != Apache5 && c.Dialect != DMS:
		return field("Dialect", "%d: want Apache5 or DMS", c.Dialect)
	}
	return nil
}

func (c Config) credentials() remoting.Credentials {
	return remoting.Credentials{AccessKey: c.AccessKey, SecretKey: c.SecretKey}
}
