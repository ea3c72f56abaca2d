package reminder_test

import (
	"testing"
	"time"

	reminder "github.com/rocketflow/rocketflow/examples/testing"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// Two weeks pass in a moment: who has paid gets no reminder, who hasn't gets one.
func TestUnpaidInvoiceIsFollowedByAReminder(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	billing := w.Start(rocketflowfx.Config{Service: "billing", Topics: reminder.Topics}, reminder.Module)

	billing.Publish(reminder.InvoiceSent{ID: "paid", At: w.Now()}, reminder.InvoiceSent{ID: "unpaid", At: w.Now()})
	w.FastForward(13 * 24 * time.Hour)
	billing.Publish(reminder.InvoicePaid{ID: "paid"})
	w.Settle()
	if sent := rocketflowtest.Events[reminder.FollowUpSent](w); len(sent) != 0 {
		t.Errorf("reminders before the time: %v", sent)
	}
	w.FastForward(2 * 24 * time.Hour)
	if sent := rocketflowtest.Events[reminder.FollowUpSent](w); len(sent) != 1 || sent[0].ID != "unpaid" {
		t.Errorf("reminders are %v, want one for the unpaid invoice", sent)
	}
}

// The broker has a power failure and loses what it hadn't written, the message of the timer included: there is one reminder.
func TestReminderDespiteAPowerFailure(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	billing := w.Start(rocketflowfx.Config{Service: "billing", Topics: reminder.Topics}, reminder.Module)

	billing.Publish(reminder.InvoiceSent{ID: "i-1", At: w.Now()})
	w.Settle()
	w.RestartBroker(rocketmqtest.LoseUnflushed)
	w.FastForward(15 * 24 * time.Hour)
	if sent := rocketflowtest.Events[reminder.FollowUpSent](w); len(sent) != 1 {
		t.Errorf("reminders are %v, want one", sent)
	}
}
