package app_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// environment returns a getenv of good settings, of which one may be replaced.
func environment(replace ...string) func(string) string {
	env := map[string]string{"DATABASE_URL": "postgres://u:secret@localhost/db", "ROCKETMQ_NAMESRV": "a:9876;b:9876"}
	for i := 0; i < len(replace); i += 2 {
		env[replace[i]] = replace[i+1]
	}
	return func(name string) string { return env[name] }
}

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	c, err := app.ConfigFromEnv("order", environment())
	if err != nil {
		t.Fatal(err)
	}
	if c.Service != "order" || c.Schema != "" || len(c.RocketMQ.NameServers) != 2 || c.CreateTopics || c.Migrate || c.ListenAddr != "" {
		t.Errorf("config is %+v", c)
	}
	if c.Database.MaxConns != 24 || c.Database.ConnConfig.RuntimeParams["application_name"] != "order" {
		t.Errorf("pool of %d connections for %q", c.Database.MaxConns, c.Database.ConnConfig.RuntimeParams["application_name"])
	}
	c, err = app.ConfigFromEnv("order", environment(
		"DATABASE_URL", "postgres://u:p@localhost/db?pool_max_conns=7&application_name=mine", "ROCKETFLOW_SCHEMA", "s", "ROCKETFLOW_MIGRATE", "1",
		"ROCKETFLOW_CREATE_TOPICS", "true", "ROCKETMQ_NAMESPACE", "ns", "ROCKETMQ_ACCESS_KEY", "k", "ROCKETMQ_SECRET_KEY", "s", "LISTEN_ADDR", ":80"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.MaxConns != 7 || c.Database.ConnConfig.RuntimeParams["application_name"] != "mine" || c.Schema != "s" || !c.Migrate ||
		!c.CreateTopics || c.RocketMQ.Namespace != "ns" || c.RocketMQ.AccessKey != "k" || c.RocketMQ.SecretKey != "s" || c.ListenAddr != ":80" {
		t.Errorf("config is %+v", c)
	}
}

// The profile may be written as in Go, and brings the transport that it needs.
func TestProfileFromEnv(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]rocketmq.Config{
		"":            {Profile: rocketmq.Apache5},
		"Proxy5":      {Profile: rocketmq.Proxy5, Transport: rocketmq.Own},
		"tencenttdmq": {Profile: rocketmq.TencentTDMQ},
	} {
		c, err := app.ConfigFromEnv("order", environment("ROCKETMQ_PROFILE", value))
		if err != nil || c.RocketMQ.Profile != want.Profile || c.RocketMQ.Transport != want.Transport {
			t.Errorf("%q: got %v, %v, %v", value, c.RocketMQ.Profile, c.RocketMQ.Transport, err)
		}
	}
	var field *rocketflow.FieldError
	if _, err := app.ConfigFromEnv("order", environment("ROCKETMQ_PROFILE", "proxy5", "ROCKETMQ_TRANSPORT", "client")); !errors.As(err, &field) || field.Field != "ROCKETMQ_TRANSPORT" {
		t.Errorf("got %v", err)
	}
}

func TestTransportFromEnv(t *testing.T) {
	t.Parallel()
	var other rocketmq.Transport
	for _, c := range []struct {
		value, serverName string
		want              rocketmq.Transport
		refused           bool
	}{
		{"", "", rocketmq.Own, false},
		{"own", "", rocketmq.Own, false},
		{"client", "", rocketmq.ClientGo, false},
		{"", "rocketmq.example", rocketmq.Own, false},
		{"own", "rocketmq.example", rocketmq.Own, false},
		{"client", "rocketmq.example", other, true},
	} {
		config, err := app.ConfigFromEnv("order", environment("ROCKETMQ_TRANSPORT", c.value, "ROCKETMQ_TLS_SERVER_NAME", c.serverName))
		var field *rocketflow.FieldError
		if c.refused != (errors.As(err, &field) && field.Field == "ROCKETMQ_TRANSPORT") || !c.refused && err != nil || config.RocketMQ.Transport != c.want {
			t.Errorf("%+v: got %v, %v", c, config.RocketMQ.Transport, err)
		}
	}
}

// An invalid value is an error that names the variable and contains no password.
func TestConfigFromEnvNamesTheVariable(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct{ variable, value string }{
		{"DATABASE_URL", ""},
		{"DATABASE_URL", "::"},
		{"DATABASE_URL", "postgres://u:secret@localhost:nonsense/db"},
		{"DATABASE_URL", "postgres://u:secret@localhost/db?sslmode=nonsense"},
		{"ROCKETFLOW_SCHEMA", "a b"},
		{"ROCKETFLOW_MIGRATE", "yes"},
		{"ROCKETMQ_NAMESRV", ""},
		{"ROCKETMQ_NAMESRV", "a:9876;"},
		{"ROCKETMQ_NAMESRV", "a"},
		{"ROCKETMQ_NAMESRV", "a:0"},
		{"ROCKETMQ_NAMESPACE", "a%b"},
		{"ROCKETMQ_PROFILE", "kafka"},
		{"ROCKETFLOW_CREATE_TOPICS", "yes"},
		{"ROCKETMQ_TRANSPORT", "tcp"},
		{"LISTEN_ADDR", "8080"},
		{"LISTEN_ADDR", ":99999"},
	} {
		_, err := app.ConfigFromEnv("order", environment(bad.variable, bad.value))
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != bad.variable || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s=%q: error is %v", bad.variable, bad.value, err)
		}
	}
	for variable, missing := range map[string]string{
		"ROCKETMQ_ACCESS_KEY": "ROCKETMQ_SECRET_KEY", "ROCKETMQ_SECRET_KEY": "ROCKETMQ_ACCESS_KEY",
	} {
		_, err := app.ConfigFromEnv("order", environment(variable, "key"))
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != missing {
			t.Errorf("only %s: error is %v", variable, err)
		}
	}
}
