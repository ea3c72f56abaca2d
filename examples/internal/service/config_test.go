package service

import (
	"errors"
	"testing"

	"github.com/rocketflow/rocketflow"
)

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"DATABASE_URL": "postgres://u:p@localhost/db", "ROCKETMQ_NAMESRV": "a:9876;b:9876",
	}
	c, err := ConfigFromEnv("order", "orders", func(name string) string { return good[name] })
	if err != nil {
		t.Fatal(err)
	}
	if c.Schema != "orders" || c.RocketflowSchema != "order_rocketflow" || c.ListenAddr != "127.0.0.1:8080" || len(c.NameServers) != 2 || c.CreateTopics {
		t.Errorf("config is %+v", c)
	}
	if c.Database.MaxConns != maxConns {
		t.Errorf("pool holds %d connections", c.Database.MaxConns)
	}

	for _, bad := range []struct{ variable, value string }{
		{"DATABASE_URL", ""},
		{"DATABASE_URL", "::"},
		{"DATABASE_SCHEMA", "a b"},
		{"ROCKETFLOW_SCHEMA", "orders"},
		{"ROCKETMQ_NAMESRV", ""},
		{"ROCKETMQ_NAMESRV", "a:9876;"},
		{"ROCKETMQ_NAMESRV", "a"},
		{"ROCKETMQ_NAMESRV", "a:0"},
		{"ROCKETMQ_NAMESPACE", "a%b"},
		{"ROCKETFLOW_CREATE_TOPICS", "yes"},
		{"LISTEN_ADDR", "8080"},
		{"LISTEN_ADDR", ":99999"},
	} {
		_, err := ConfigFromEnv("order", "orders", func(name string) string {
			if name == bad.variable {
				return bad.value
			}
			return good[name]
		})
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != bad.variable {
			t.Errorf("%s=%q: error is %v", bad.variable, bad.value, err)
		}
	}

	for variable, missing := range map[string]string{
		"ROCKETMQ_ACCESS_KEY": "ROCKETMQ_SECRET_KEY", "ROCKETMQ_SECRET_KEY": "ROCKETMQ_ACCESS_KEY",
	} {
		_, err := ConfigFromEnv("order", "orders", func(name string) string {
			if name == variable {
				return "key"
			}
			return good[name]
		})
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != missing {
			t.Errorf("only %s: error is %v", variable, err)
		}
	}
}
