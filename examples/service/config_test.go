package service

import (
	"errors"
	"testing"

	"github.com/rocketflow/rocketflow"
)

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	env := func(variable, value string) func(string) string {
		return func(name string) string {
			if name == variable {
				return value
			}
			return map[string]string{
				"DATABASE_URL": "postgres://u:p@localhost/db?search_path=theirs", "ROCKETMQ_NAMESRV": "a:9876;b:9876",
			}[name]
		}
	}
	c, err := ConfigFromEnv("order", "orders", env("", ""))
	if err != nil {
		t.Fatal(err)
	}
	if c.Tables != "orders" || c.Schema != "order_rocketflow" || c.ListenAddr != "127.0.0.1:8080" || !c.Migrate {
		t.Errorf("config is %+v", c)
	}
	if path := c.rocketflow().Database.ConnConfig.RuntimeParams["search_path"]; path != `"orders", theirs` {
		t.Errorf("search path is %s", path)
	}
	for _, bad := range []struct{ variable, value string }{
		{"DATABASE_URL", ""},
		{"DATABASE_SCHEMA", "a b"},
		{"ROCKETFLOW_SCHEMA", "orders"},
		{"LISTEN_ADDR", "8080"},
	} {
		_, err := ConfigFromEnv("order", "orders", env(bad.variable, bad.value))
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != bad.variable {
			t.Errorf("%s=%q: error is %v", bad.variable, bad.value, err)
		}
	}
}
