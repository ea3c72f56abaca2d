package rocketmq

import (
	"cmp"
	"context"
	"crypto/tls"
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

// Config configures a [Client]. NameServers and Service are required.
type Config struct {
	// NameServers are the addresses, host:port, of the name servers of one RocketMQ. Required. The client looks up host names
	// again every 10 s.
	NameServers []string

	// Profile is the kind of RocketMQ that NameServers lead to: Apache RocketMQ, its proxy, or a cloud's. What it can't do is refused
	// with the reason, or done in another way.
	// Defaults to Apache5.
	Profile Profile

	// AccessKey and SecretKey sign every request to a broker. Set both or neither.
	// Defaults to unsigned requests.
	AccessKey, SecretKey string

	// TLS makes the client use TLS for all of its connections, to name servers and to brokers. Certificates are verified unless
	// TLS.InsecureSkipVerify is set: against TLS.RootCAs, or the machine's authorities if that is nil, and for TLS.ServerName, or, if
	// that is empty, for the host in NameServers and for the broker's address as name servers list it, which is an IP address as a
	// rule. So set ServerName to a name that is in the certificates of all servers, or let each broker's certificate have its IP
	// address. TLS.Certificates or TLS.GetClientCertificate is for servers that require a certificate of the client. The client
	// doesn't change the tls.Config, and the caller must not after Open. TLS needs Transport Own: rocketmq-client-go makes no TLS
	// connections that it verifies.
	// Defaults to connections without TLS.
	TLS *tls.Config

	// Service is the name of the program. RocketMQ's tools show it in the names of the client's connections. Required; 1 to 64
	// letters, digits, _ and -.
	Service string

	// Namespace is a prefix of all topics and groups on the wire, with which several installations can share one RocketMQ. Callers
	// use names without it. At most 48 letters, digits, _ and -.
	// Defaults to none.
	Namespace string

	// AwaitBroker is for programs that start while no broker can be reached. With it Open, OpenTransactionProducer, Subscribe,
	// CreateTopics and VerifyTopics return nil then, and are completed as soon as a broker can be reached; until then Client.Ping and
	// Consumer.Err return the reason, and sends fail with broker.ErrUnavailable. What a broker refuses, such as wrong credentials or
	// a missing topic, is still an error if a broker can be reached; if one can be reached only later, Ping and the log show it.
	// Defaults to false: these calls fail with broker.ErrUnavailable.
	AwaitBroker bool

	// Transport is how the client sends and consumes.
	// Defaults to Own.
	Transport Transport

	// MaxMessage is the size of the largest body that a consumer reads after decompression, in bytes: a few bytes can stand for gigabytes.
	// A larger body isn't read, and its delivery says so: see broker.Delivery.Unreadable. All decompressed bodies that a consumer's handlers
	// have at once take at most 32 MiB and one MaxMessage; further ones wait. With the transport ClientGo neither holds for zlib, which
	// rocketmq-client-go decompresses without a limit.
	// Defaults to 16 MiB, four times what brokers with default settings take.
	MaxMessage int

	// Logger gets what the client logs, and what rocketmq-client-go logs at lower levels.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger

	// Listener is called when something happens.
	// Defaults to none.
	Listener *Listener

	// SendTimeout bounds the wait for the response to a send, or to the end of a half message, in addition to the caller's context.
	// rocketmq-client-go waits no longer than 3 s for a send.
	// Defaults to 3 s.
	SendTimeout time.Duration

	// RequireReplication makes a send fail, with an error that matches broker.ErrUnavailable, if the broker has stored the message but not
	// flushed or replicated it as it is set to: a synchronous slave is missing or late, or the disk is. The outbox then sends the message
	// again, and again until it is as safe as the broker promises.
	// Defaults to false: the message is sent, Listener.StoredLessSafely is called, and the log has a warning.
	RequireReplication bool

	// ForgetBrokerAfter is how long a broker may be away before others take its place. Until then a send whose sharding key belongs to one
	// of its queues fails with an error that matches broker.ErrUnavailable, so that the outbox owes the event and a stream stays in one
	// queue; other keys are not concerned. After it, if no name server lists the broker, all keys are distributed among the queues of the
	// others, and anew when it is back: consumers of package handlers check the order of each stream, and wait for what is in the queues
	// of the broker that is away, or request it again. At least 1 s, and longer than a broker takes to restart.
	// Defaults to 10 min.
	ForgetBrokerAfter time.Duration

	// StopQuietPeriod is the minimum time between the last change of a consumer's queues, or its start, and its disconnect by
	// Consumer.Stop. After it the heartbeats that follow a change have been answered, so that the broker removes the consumer from
	// its group at once and assigns its queues to others. A consumer also doesn't disconnect for half a second around its regular
	// heartbeats, one in 30 s. A negative value makes a consumer disconnect at once: brokers that handle a connection's end and its
	// heartbeats in parallel, as RocketMQ does, may then list it for two more minutes, and the embedded broker never does. The
	// transport Own needs none and ignores it.
	// Defaults to 1 s.
	StopQuietPeriod time.Duration

	// MaxAsync is the maximum number of sends of SendAsync in flight.
	// Defaults to 256.
	MaxAsync int

	// TimerHorizon is how far ahead Schedule accepts an instant. With Apache5 it must be less than the broker's timerMaxDelaySec, which
	// is 3 days by default. With a profile that has no timers it can't be set.
	// Defaults to the profile's, which is 71 h for Apache5.
	TimerHorizon time.Duration

	// Clock is the clock by which Schedule and Cancel decide how far ahead an instant is. Brokers have clocks of their own, which
	// should agree with it.
	// Defaults to the machine's clock.
	Clock rocketflow.Clock

	lookUpHost func(ctx context.Context, host string) ([]string, error) // for tests; nil: the system's

	jsonHeaders bool // for benchmarks: requests of the driver's own connections have JSON headers, also where brokers take binary ones
}

const (
	defaultSendTimeout     = 3 * time.Second
	defaultStopQuietPeriod = time.Second
	defaultMaxAsync        = 256
	defaultForgetBroker    = 10 * time.Minute
	defaultMaxMessage      = 16 << 20
)

func (c Config) withDefaults() Config {
	c.SendTimeout = cmp.Or(c.SendTimeout, defaultSendTimeout)
	c.ForgetBrokerAfter = cmp.Or(c.ForgetBrokerAfter, defaultForgetBroker)
	c.StopQuietPeriod = cmp.Or(c.StopQuietPeriod, defaultStopQuietPeriod)
	c.MaxAsync = cmp.Or(c.MaxAsync, defaultMaxAsync)
	c.Profile = c.Profile.orDefault()
	c.MaxMessage = cmp.Or(c.MaxMessage, defaultMaxMessage)
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
	case c.ForgetBrokerAfter < time.Second:
		return field("ForgetBrokerAfter", "%v: want at least 1s", c.ForgetBrokerAfter)
	case c.SendTimeout < 0:
		return field("SendTimeout", "%v: want more than 0", c.SendTimeout)
	case c.MaxAsync < 0:
		return field("MaxAsync", "%d: want more than 0", c.MaxAsync)
	case c.TimerHorizon < 0:
		return field("TimerHorizon", "%v: want more than 0", c.TimerHorizon)
	case c.Transport != ClientGo && c.Transport != Own:
		return field("Transport", "%d: want ClientGo or Own", c.Transport)
	case c.MaxMessage < 0:
		return field("MaxMessage", "%d: want more than 0", c.MaxMessage)
	}
	if err := c.validateProfile(); err != nil {
		return err
	}
	return c.validateTLS()
}

func (c Config) credentials() remoting.Credentials {
	return remoting.Credentials{AccessKey: c.AccessKey, SecretKey: c.SecretKey}
}
