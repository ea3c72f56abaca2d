package acceptance

import (
	"context"
	"fmt"
	"testing"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// The topics of the tests that run in a rocketflowtest.Env.
const (
	envTopic         = "orders"
	envDeadlineTopic = "order-deadlines"
)

var envTopics = []broker.Topic{{Name: envTopic, Queues: 4}, {Name: envDeadlineTopic, Queues: 4}}

// typed is event number n of an aggregate, of a type that tests vary. Without a subject it has no order.
func typed(eventType, subject string, n int) rocketflow.Event {
	return rocketflow.Event{Topic: envTopic, Type: eventType, Subject: subject, Body: fmt.Appendf(nil, `{"key":%q,"number":%d}`, subject, n)}
}

// deadline is what a timeout of the tests fires.
type deadline struct {
	Key string `json:"key"`
}

func (d deadline) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: envDeadlineTopic, Type: "order.deadline"}
}

// startService starts a service with a table effect for its handlers.
func startService(t *testing.T, w *rocketflowtest.Env, name string, options ...fx.Option) *rocketflowtest.Service {
	t.Helper()
	return startServiceWith(t, w, rocketflowfx.Config{Service: name, Topics: envTopics}, options...)
}

func startServiceWith(t *testing.T, w *rocketflowtest.Env, config rocketflowfx.Config, options ...fx.Option) *rocketflowtest.Service {
	t.Helper()
	s := w.Start(config, options...)
	createEffects(t, s)
	return s
}

func createEffects(t *testing.T, s *rocketflowtest.Service) {
	t.Helper()
	_, err := s.Pool.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS effect (n bigserial PRIMARY KEY, kind text NOT NULL, key text NOT NULL, number int NOT NULL)")
	if err != nil {
		t.Fatal(err)
	}
}

// recordAs is a handler that leaves a row of effect.
func recordAs(kind string) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		decoded, err := wire.DecodeBody[event](e)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO effect (kind, key, number) VALUES ($1, $2, $3)", kind, decoded.Key, decoded.Number)
		return err
	}
}

// handle registers recordAs for types of the topic.
func handle(consumer string, types ...string) fx.Option {
	return fx.Invoke(func(r *handlers.Router) {
		for _, eventType := range types {
			r.Handle(consumer, envTopic, eventType, recordAs(eventType))
		}
	})
}

func countIn(t *testing.T, s *rocketflowtest.Service, sql string, args ...any) (n int) {
	t.Helper()
	if err := s.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// effects counts the rows of a kind, and those of them that repeat another.
func effects(t *testing.T, s *rocketflowtest.Service, kind string) (all, repeated int) {
	t.Helper()
	return countIn(t, s, "SELECT count(*) FROM effect WHERE kind = $1", kind),
		countIn(t, s, "SELECT count(*) - count(DISTINCT (key, number)) FROM effect WHERE kind = $1", kind)
}

// misordered counts effects of an aggregate that come after one of a higher number.
func misordered(t *testing.T, s *rocketflowtest.Service) int {
	t.Helper()
	return countIn(t, s, `SELECT count(*) FROM (SELECT number < lag(number) OVER (PARTITION BY key ORDER BY n) AS wrong FROM effect WHERE key <> '') x WHERE wrong`)
}
