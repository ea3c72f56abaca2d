package app

import (
	"cmp"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Environment variables that [ConfigFromEnv] reads.
const (
	EnvDatabaseURL   = "DATABASE_URL"
	EnvSchema        = "ROCKETFLOW_SCHEMA"
	EnvMigrate       = "ROCKETFLOW_MIGRATE"
	EnvCreateTopics  = "ROCKETFLOW_CREATE_TOPICS"
	EnvNameServers   = "ROCKETMQ_NAMESRV"
	EnvProfile       = "ROCKETMQ_PROFILE"
	EnvNamespace     = "ROCKETMQ_NAMESPACE"
	EnvAccessKey     = "ROCKETMQ_ACCESS_KEY"
	EnvSecretKey     = "ROCKETMQ_SECRET_KEY"
	EnvTransport     = "ROCKETMQ_TRANSPORT"
	EnvTLSCA         = "ROCKETMQ_TLS_CA"
	EnvTLSCert       = "ROCKETMQ_TLS_CERT"
	EnvTLSKey        = "ROCKETMQ_TLS_KEY"
	EnvTLSServerName = "ROCKETMQ_TLS_SERVER_NAME"
	EnvListenAddr    = "LISTEN_ADDR"
)

// DefaultMaxConns is the size of a pool unless DATABASE_URL sets pool_max_conns: the connections of one consumer's lanes,
// those of the parts' background work, and those of requests that are served side by side. See docs/postgres.md.
const DefaultMaxConns = 8 + 6 + 10

var envName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// ConfigFromEnv returns the Config of a service with the settings that getenv, usually os.Getenv, returns:
//
//	DATABASE_URL              required; Config.Database. Its pool has 24 connections unless pool_max_conns is set
//	ROCKETFLOW_SCHEMA         Config.Schema
//	ROCKETFLOW_MIGRATE        Config.Migrate, 1 or 0
//	ROCKETMQ_NAMESRV          required; Config.RocketMQ.NameServers, as host:port[;host:port]
//	ROCKETMQ_PROFILE          Config.RocketMQ.Profile, such as apache5 or proxy5, see [ProfileFromEnv]
//	ROCKETMQ_NAMESPACE        Config.RocketMQ.Namespace
//	ROCKETMQ_ACCESS_KEY       Config.RocketMQ.AccessKey
//	ROCKETMQ_SECRET_KEY       Config.RocketMQ.SecretKey, which needs ROCKETMQ_ACCESS_KEY and is needed by it
//	ROCKETMQ_TRANSPORT        Config.RocketMQ.Transport, own or client, see [TransportFromEnv]
//	ROCKETMQ_TLS_…            Config.RocketMQ.TLS, see [TLSFromEnv]
//	ROCKETFLOW_CREATE_TOPICS  Config.CreateTopics, 1 or 0
//	LISTEN_ADDR               Config.ListenAddr, as [host]:port
//
// A variable that isn't set leaves its field zero, which means the default. An error is a *rocketflow.FieldError whose Field
// is the name of the variable. Its text contains no password.
func ConfigFromEnv(service string, getenv func(string) string) (Config, error) {
	c := Config{Service: service, Schema: getenv(EnvSchema), ListenAddr: getenv(EnvListenAddr)}
	c.RocketMQ.Namespace = getenv(EnvNamespace)
	c.RocketMQ.AccessKey, c.RocketMQ.SecretKey = getenv(EnvAccessKey), getenv(EnvSecretKey)
	for _, variable := range []string{EnvDatabaseURL, EnvNameServers} {
		if getenv(variable) == "" {
			return Config{}, valid.Field(variable, "not set")
		}
	}
	for _, server := range strings.Split(getenv(EnvNameServers), ";") {
		if !isAddress(server) {
			return Config{}, valid.Fieldf(EnvNameServers, "%q: want host:port[;host:port]", server)
		}
		c.RocketMQ.NameServers = append(c.RocketMQ.NameServers, server)
	}
	switch {
	case c.Schema != "" && !envName.MatchString(c.Schema):
		return Config{}, valid.Fieldf(EnvSchema, "%q: want 1 to 48 letters, digits, _ or -", c.Schema)
	case c.RocketMQ.Namespace != "" && !envName.MatchString(c.RocketMQ.Namespace):
		return Config{}, valid.Fieldf(EnvNamespace, "%q: want 1 to 48 letters, digits, _ or -", c.RocketMQ.Namespace)
	case c.RocketMQ.AccessKey == "" && c.RocketMQ.SecretKey != "":
		return Config{}, valid.Field(EnvAccessKey, "not set, but "+EnvSecretKey+" is")
	case c.RocketMQ.AccessKey != "" && c.RocketMQ.SecretKey == "":
		return Config{}, valid.Field(EnvSecretKey, "not set, but "+EnvAccessKey+" is")
	case c.ListenAddr != "" && !isListenAddress(c.ListenAddr):
		return Config{}, valid.Fieldf(EnvListenAddr, "%q: want [host]:port", c.ListenAddr)
	}
	var err error
	if c.Migrate, err = boolFromEnv(EnvMigrate, getenv); err != nil {
		return Config{}, err
	}
	if c.CreateTopics, err = boolFromEnv(EnvCreateTopics, getenv); err != nil {
		return Config{}, err
	}
	if c.RocketMQ.Profile, err = ProfileFromEnv(getenv); err != nil {
		return Config{}, err
	}
	if c.RocketMQ.TLS, err = TLSFromEnv(getenv); err != nil {
		return Config{}, err
	}
	if c.RocketMQ.Transport, err = TransportFromEnv(getenv); err != nil {
		return Config{}, err
	}
	if c.Database, err = databaseFromEnv(service, getenv(EnvDatabaseURL)); err != nil {
		return Config{}, err
	}
	return c, nil
}

// ProfileFromEnv returns the profile for rocketmq.Config.Profile that getenv, usually os.Getenv, returns as ROCKETMQ_PROFILE, such as
// apache5 or Proxy5. An error is a *rocketflow.FieldError whose Field is ROCKETMQ_PROFILE. [ConfigFromEnv] calls ProfileFromEnv.
func ProfileFromEnv(getenv func(string) string) (rocketmq.Profile, error) {
	profile, err := rocketmq.ParseProfile(getenv(EnvProfile))
	if err != nil {
		return "", valid.Field(EnvProfile, err.Error())
	}
	return profile, nil
}

// TransportFromEnv returns the transport for rocketmq.Config.Transport that getenv, usually os.Getenv, returns as ROCKETMQ_TRANSPORT: Own
// for own and if it isn't set, ClientGo for client, which has no TLS and can't do what some profiles need. An error is a
// *rocketflow.FieldError whose Field is ROCKETMQ_TRANSPORT. [ConfigFromEnv] calls TransportFromEnv.
func TransportFromEnv(getenv func(string) string) (rocketmq.Transport, error) {
	usesTLS := slices.ContainsFunc([]string{EnvTLSCA, EnvTLSCert, EnvTLSKey, EnvTLSServerName}, func(name string) bool { return getenv(name) != "" })
	profile, err := ProfileFromEnv(getenv)
	if err != nil {
		return 0, err
	}
	reason := ""
	if refused := profile.RefusesTransport(rocketmq.ClientGo); refused != nil {
		reason = refused.Error()
	}
	switch v := getenv(EnvTransport); {
	case v == "own" || v == "":
		return rocketmq.Own, nil
	case v == "client" && usesTLS:
		return 0, valid.Field(EnvTransport, "client: it has no TLS, which the variables ROCKETMQ_TLS_… ask for: want own")
	case v == "client" && reason != "":
		return 0, valid.Field(EnvTransport, "client: "+reason)
	case v == "client":
		return rocketmq.ClientGo, nil
	default:
		return 0, valid.Fieldf(EnvTransport, "%q: want own or client", v)
	}
}

// databaseFromEnv parses the connection string and sets what it leaves open: the pool's size and the connections' name.
func databaseFromEnv(service, url string) (*pgxpool.Config, error) {
	database, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, valid.Wrap(EnvDatabaseURL, "can't be parsed", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		database.MaxConns = DefaultMaxConns
	}
	parameters := database.ConnConfig.RuntimeParams
	parameters["application_name"] = cmp.Or(parameters["application_name"], service)
	return database, nil
}

func boolFromEnv(variable string, getenv func(string) string) (bool, error) {
	v := getenv(variable)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, valid.Fieldf(variable, "%q: want 1 or 0", v)
	}
	return b, nil
}

func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && perr == nil && n > 0
}

func isListenAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}
