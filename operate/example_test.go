package operate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
)

// examplePool returns a pool that doesn't connect before it is used.
func examplePool() *pgxpool.Pool {
	pool, err := pgxpool.New(context.Background(), "postgres://localhost/shop")
	if err != nil {
		panic(err)
	}
	return pool
}

func ExampleNew() {
	_, err := operate.New(operate.Config{Schema: "order_rocketflow"})
	fmt.Println(err)
	// Output: operate.Config.Pool: missing
}

// A change refuses a filter that selects nothing in particular.
func ExampleOperator_RetryDeadLetters() {
	operator, err := operate.New(operate.Config{Pool: examplePool(), Schema: "order_rocketflow"})
	if err != nil {
		fmt.Println(err)
		return
	}
	consumer := os.Getenv("NO_SUCH_VARIABLE")
	_, err = operator.RetryDeadLetters(context.Background(), operate.ParkedFilter{Consumer: consumer})
	var field *rocketflow.FieldError
	fmt.Println(errors.As(err, &field))
	fmt.Println(err)
	// Output:
	// true
	// operate.ParkedFilter: want either All or a field that selects events
}

// A job retries the dead letters of a consumer whose dependency was away.
func ExampleOperator_DeadLetters() {
	retry := func(ctx context.Context, operator *operate.Operator) error {
		letters, err := operator.DeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"})
		if err != nil {
			return err
		}
		for _, l := range letters {
			fmt.Println(l.Event.Type, l.Event.Subject, l.Attempts, l.LastError)
		}
		n, err := operator.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"})
		fmt.Println(n, "are due")
		return err
	}
	_ = retry
}

// Events of a mistyped topic are moved to the right one.
func ExampleOperator_RedirectRejected() {
	redirect := func(ctx context.Context, operator *operate.Operator) error {
		n, err := operator.RedirectRejected(ctx, operate.RejectedFilter{Topic: "order"}, "orders")
		fmt.Println(n, "were moved")
		return err
	}
	_ = redirect

	operator, err := operate.New(operate.Config{Pool: examplePool()})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = operator.RedirectRejected(context.Background(), operate.RejectedFilter{Topic: "orders"}, "orders")
	fmt.Println(err)
	// Output: topic: "orders": want another topic
}

// Resend sends what was recorded in the last two hours to a broker that has lost it.
func ExampleOperator_Resend() {
	resend := func(ctx context.Context, pool *pgxpool.Pool, broker operate.Sender) (int, error) {
		operator, err := operate.New(operate.Config{Pool: pool, Schema: "order_rocketflow", Broker: broker, ResendRate: 1000})
		if err != nil {
			return 0, err
		}
		return operator.Resend(ctx, operate.ResendFilter{Since: time.Now().Add(-2 * time.Hour)})
	}
	_ = resend

	operator, err := operate.New(operate.Config{Pool: examplePool()})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = operator.Resend(context.Background(), operate.ResendFilter{All: true})
	fmt.Println(err)
	// Output: operate.Config.Broker: missing: Resend sends to it
}

// EventStatus says whether an event was sent and handled.
func ExampleOperator_EventStatus() {
	show := func(ctx context.Context, operator *operate.Operator, id uuid.UUID) error {
		e, err := operator.EventStatus(ctx, id)
		if errors.Is(err, operate.ErrUnknownEvent) {
			fmt.Println("look in the schema of the service that published it")
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println("acknowledged:", !e.AckedAt.IsZero())
		for _, c := range e.Consumers {
			fmt.Println(c.Name, c.State)
		}
		return nil
	}
	_ = show
}

// Lists and reports marshal to the JSON that the command prints.
func ExampleParkedEvent() {
	text, err := json.MarshalIndent(operate.ParkedEvent{
		Consumer: "billing",
		Event: rocketflow.Event{
			ID: uuid.MustParse("0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f"), Source: "shop", Topic: "orders", Type: "order.closed", Subject: "4711",
		},
		Reason:    operate.StateDead,
		Attempts:  12,
		LastError: "no such article",
		ParkedAt:  time.Date(2026, time.January, 31, 8, 0, 0, 0, time.UTC),
	}, "", "  ")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(text))
	// Output:
	// {
	//   "consumer": "billing",
	//   "event_id": "0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f",
	//   "type": "order.closed",
	//   "source": "shop",
	//   "topic": "orders",
	//   "subject": "4711",
	//   "reason": "dead",
	//   "attempts": 12,
	//   "last_error": "no such article",
	//   "parked_at": "2026-01-31T08:00:00Z"
	// }
}

// AuditRecorded is the event that tells other systems of a change that an operator has made.
type AuditRecorded struct{ operate.AuditEntry }

// EventMeta implements rocketflow.Payload.
func (a AuditRecorded) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "audit", Type: "audit.recorded", Subject: a.Actor}
}

// Each change of an operator is published as an event, in the transaction of the change.
func ExampleConfig_onAudit() {
	open := func(pool *pgxpool.Pool, box *outbox.Outbox) (*operate.Operator, error) {
		return operate.New(operate.Config{
			Pool: pool, Schema: "order_rocketflow", Actor: "nightly job",
			OnAudit: func(ctx context.Context, tx pgx.Tx, e operate.AuditEntry) error {
				return box.Join(tx).Publish(ctx, AuditRecorded{e})
			},
		})
	}
	_ = open
}

// A change is made in the name of a person, with a reason.
func ExampleWithActor() {
	retry := func(ctx context.Context, operator *operate.Operator) error {
		ctx = operate.WithActor(ctx, operate.Actor{Name: "maria@example.com", Reason: "the bank's gateway is back"})
		_, err := operator.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"})
		return err
	}
	_ = retry
}
