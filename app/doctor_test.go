package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
)

// The doctor of a running service finds its producer group, its consumers' members and their topics at the broker, whatever their names,
// and the sagas that it registers: all is well.
func TestDoctorOfARunningService(t *testing.T) {
	t.Parallel()
	for name, transport := range map[string]rocketmq.Transport{"client-go": rocketmq.ClientGo, "own": rocketmq.Own} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shop(t)
			c.RocketMQ.Transport = transport
			c.Outbox.Group, c.Handlers.GroupPrefix = "acme_shop", "acme_"
			c.Saga.TimeoutTopic = "timeouts"
			// What belongs to the servers of the tests is left out.
			c.Doctor = &doctor.Config{Only: []string{"outbox", "consumers", "flows", "broker-topics", "broker-permission", "broker-half-messages", "broker-dead-letters", "host"}, Probe: true}
			a, err := app.New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = a.Stop(context.Background()) }()
			handled := make(chan string, 10)
			handlers.On(a.Router(), "billing", func(_ context.Context, _ rocketflow.Tx, p Placed) error {
				handled <- p.ID
				return nil
			})
			orders, err := saga.Register(a.Sagas(), saga.Define[struct{}]("order", 3).Initial("open").Final("closed").
				Deadline("open", "closed", func(*struct{}) time.Time { return time.Now().Add(time.Hour) }, func(context.Context, rocketflow.Tx, *struct{}) error { return nil }))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
				if err := orders.Begin(ctx, tx, "o-1", struct{}{}); err != nil {
					return err
				}
				return tx.Publish(ctx, Placed{"1"})
			}); err != nil {
				t.Fatal(err)
			}
			<-handled
			var report *doctor.Report
			poll.Until(t, "all is well", func() bool { // leases are taken, and offsets committed, within seconds
				report = a.Doctor().Examine(t.Context())
				return len(report.Findings()) == 0 && len(report.Unknown()) == 0
			})
			if len(report.Results) < 20 {
				t.Errorf("only %d results", len(report.Results))
			}
			for _, r := range report.Results {
				t.Logf("%s %s: %s", r.Code, r.Subject, r.Observed)
			}
		})
	}
}
