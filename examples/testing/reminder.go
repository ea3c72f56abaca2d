// Package reminder is a small flow whose test shows how flows are tested: with rocketflowtest, a broker in the test's
// process, and a clock that the test moves. An invoice that isn't paid within 14 days is followed by a reminder.
package reminder

import (
	"context"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/timeout"
)

// Topics are the topics of the flow.
var Topics = []broker.Topic{{Name: "invoices"}, {Name: "payments"}, {Name: "invoice-timeouts", Kind: broker.Delay}}

const dueAfter = 14 * 24 * time.Hour

// InvoiceSent begins the flow.
type InvoiceSent struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// InvoicePaid ends it.
type InvoicePaid struct {
	ID string `json:"id"`
}

// InvoiceDue is the event of the timeout.
type InvoiceDue struct {
	ID string `json:"id"`
}

// FollowUpSent is published for an invoice that wasn't paid.
type FollowUpSent struct {
	ID string `json:"id"`
}

// EventMeta implements rocketflow.Payload.
func (p InvoiceSent) EventMeta() rocketflow.Meta { return meta("invoices", "invoice.sent", p.ID) }

// EventMeta implements rocketflow.Payload.
func (p InvoicePaid) EventMeta() rocketflow.Meta { return meta("payments", "invoice.paid", p.ID) }

// EventMeta implements rocketflow.Payload.
func (p InvoiceDue) EventMeta() rocketflow.Meta { return meta("invoice-timeouts", "invoice.due", p.ID) }

// EventMeta implements rocketflow.Payload.
func (p FollowUpSent) EventMeta() rocketflow.Meta { return meta("invoices", "follow_up.sent", p.ID) }

func meta(topic, eventType, invoice string) rocketflow.Meta {
	return rocketflow.Meta{Topic: topic, Type: eventType, Subject: invoice}
}

// Module registers the flow's handlers.
var Module = fx.Invoke(func(router *handlers.Router, timeouts *timeout.Scheduler) {
	handlers.On(router, "reminders", func(ctx context.Context, tx rocketflow.Tx, p InvoiceSent) error {
		return timeouts.Arm(ctx, tx, p.ID, "due", p.At.Add(dueAfter), InvoiceDue{p.ID})
	})
	handlers.On(router, "reminders", func(ctx context.Context, tx rocketflow.Tx, p InvoicePaid) error {
		_, err := timeouts.Disarm(ctx, tx, p.ID, "due")
		return err
	})
	handlers.On(router, "reminders", func(ctx context.Context, tx rocketflow.Tx, p InvoiceDue) error {
		return tx.Publish(ctx, FollowUpSent(p))
	})
})
