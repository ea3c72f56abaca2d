package service

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
)

// Config is what a service reads from its environment.
type Config struct {
	Name string // of the service

	Database         *pgxpool.Config // DATABASE_URL
	Schema           string          // DATABASE_SCHEMA: the service's own tables
	RocketflowSchema string          // ROCKETFLOW_SCHEMA: rocketflow's tables

	NameServers          []string // ROCKETMQ_NAMESRV: host:port[;host:port]
	AccessKey, SecretKey string   // ROCKETMQ_ACCESS_KEY, ROCKETMQ_SECRET_KEY: both or neither
	Namespace            string   // ROCKETMQ_NAMESPACE: prefix of topics and groups
	CreateTopics         bool     // ROCKETFLOW_CREATE_TOPICS: create missing topics instead of failing

	ListenAddr string // LISTEN_ADDR, default 127.0.0.1:8080: :8080 is for all interfaces
}

// maxConns is the size of the pool unless DATABASE_URL sets pool_max_conns: a connection for each lane of the service's one
// consumer, those of rocketflow's other parts, and the requests that are served side by side.
const (
	maxConns = lanes + parts + requests

	lanes    = 8 // the default of handlers.Config
	parts    = 6 // outbox, timeouts, sagas, retention
	requests = 10
)

var name = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// ConfigFromEnv reads the settings of a service whose own tables live in schema by default. An error is a
// *rocketflow.FieldError that names the variable.
func ConfigFromEnv(service, schema string, getenv func(string) string) (Config, error) {
	c := Config{
		Name:             service,
		Schema:           cmp.Or(getenv("DATABASE_SCHEMA"), schema),
		RocketflowSchema: cmp.Or(getenv("ROCKETFLOW_SCHEMA"), service+"_rocketflow"),
		AccessKey:        getenv("ROCKETMQ_ACCESS_KEY"),
		SecretKey:        getenv("ROCKETMQ_SECRET_KEY"),
		Namespace:        getenv("ROCKETMQ_NAMESPACE"),
		ListenAddr:       cmp.Or(getenv("LISTEN_ADDR"), "127.0.0.1:8080"),
	}
	bad := func(variable, format string, args ...any) (Config, error) {
		return Config{}, &rocketflow.FieldError{Field: variable, Reason: fmt.Sprintf(format, args...)}
	}
	for _, variable := range []string{"DATABASE_URL", "ROCKETMQ_NAMESRV"} {
		if getenv(variable) == "" {
			return bad(variable, "not set")
		}
	}
	database, err := pgxpool.ParseConfig(getenv("DATABASE_URL"))
	if err != nil {
		return bad("DATABASE_URL", "%v", err)
	}
	if !strings.Contains(getenv("DATABASE_URL"), "pool_max_conns") {
		database.MaxConns = maxConns
	}
	c.Database = database
	for _, server := range strings.Split(getenv("ROCKETMQ_NAMESRV"), ";") {
		if !isAddress(server) {
			return bad("ROCKETMQ_NAMESRV", "%q: want host:port[;host:port]", server)
		}
		c.NameServers = append(c.NameServers, server)
	}
	switch {
	case !name.MatchString(c.Schema):
		return bad("DATABASE_SCHEMA", "%q: want a name", c.Schema)
	case !name.MatchString(c.RocketflowSchema) || c.RocketflowSchema == c.Schema:
		return bad("ROCKETFLOW_SCHEMA", "%q: want a name that differs from DATABASE_SCHEMA", c.RocketflowSchema)
	case c.AccessKey == "" && c.SecretKey != "":
		return bad("ROCKETMQ_ACCESS_KEY", "not set, but ROCKETMQ_SECRET_KEY is")
	case c.AccessKey != "" && c.SecretKey == "":
		return bad("ROCKETMQ_SECRET_KEY", "not set, but ROCKETMQ_ACCESS_KEY is")
	case c.Namespace != "" && !name.MatchString(c.Namespace):
		return bad("ROCKETMQ_NAMESPACE", "%q: want a name", c.Namespace)
	case !isListenAddress(c.ListenAddr):
		return bad("LISTEN_ADDR", "%q: want [host]:port", c.ListenAddr)
	}
	if v := getenv("ROCKETFLOW_CREATE_TOPICS"); v != "" {
		if c.CreateTopics, err = strconv.ParseBool(v); err != nil {
			return bad("ROCKETFLOW_CREATE_TOPICS", "%q: want 1 or 0", v)
		}
	}
	return c, nil
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
