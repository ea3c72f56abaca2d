// Command timeout shows timeouts that are armed, moved and disarmed in transactions: sessions that expire unless they are
// used or closed. It runs three of them, prints which expire, and ends.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
)

// SessionExpired is the event of the timeout.
type SessionExpired struct {
	Session string `json:"session"`
	Name    string `json:"name"`
}

// EventMeta implements rocketflow.Payload.
func (p SessionExpired) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "session-timeouts", Type: "session.expired", Subject: p.Session}
}

func main() {
	config, err := app.ConfigFromEnv("sessions", os.Getenv)
	check(err)
	config.Migrate, config.CreateTopics = true, true
	config.Topics = []broker.Topic{{Name: "session-timeouts", Kind: broker.Delay}}
	a, err := app.New(config)
	check(err)
	expired := make(chan SessionExpired, 10)
	handlers.On(a.Router(), "sessions", func(_ context.Context, tx rocketflow.Tx, p SessionExpired) error {
		tx.AfterCommit(func() { expired <- p }) // for this demonstration; a real handler changes the session's row
		return nil
	})
	ctx := context.Background()
	check(a.Start(ctx))

	began := time.Now()
	used, closed, idle := uuid.NewString(), uuid.NewString(), uuid.NewString()
	check(a.Outbox().Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		for session, name := range map[string]string{used: "used", closed: "closed", idle: "idle"} {
			if err := a.Timeouts().Arm(ctx, tx, session, "expiry", began.Add(2*time.Second), SessionExpired{session, name}); err != nil {
				return err
			}
		}
		return nil
	}))
	check(a.Outbox().Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		// Arming an armed timeout moves it.
		if err := a.Timeouts().Arm(ctx, tx, used, "expiry", began.Add(4*time.Second), SessionExpired{used, "used"}); err != nil {
			return err
		}
		_, err := a.Timeouts().Disarm(ctx, tx, closed, "expiry")
		return err
	}))
	for range 2 {
		p := <-expired
		early := time.Since(began) < 2*time.Second
		fmt.Printf("%s session expired, early: %v\n", p.Name, early)
	}
	check(a.Stop(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
