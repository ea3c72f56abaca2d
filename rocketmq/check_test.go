package rocketmq

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// TestLateDecisionIsNotTaken: a decision after the deadline is not sent to the broker, and done gets an error. Otherwise the checker would
// take the event for delivered.
func TestLateDecisionIsNotTaken(t *testing.T) {
	t.Parallel()
	for name, decision := range map[string]broker.Decision{"commit": broker.Commit, "rollback": broker.Rollback} {
		log := slog.New(slog.DiscardHandler)
		client := &Client{listener: (*Listener)(nil).guarded(log), log: log}
		var q *checkQueue
		called, got := false, error(nil)
		q = newCheckQueue(&transactionProducer{client: client, group: "g"}, func(ctx context.Context, _ broker.Check) (broker.Decision, func(error)) {
			q.cancel() // as its deadline would
			<-ctx.Done()
			return decision, func(err error) { called, got = true, err }
		})
		q.answer(broker.Check{})
		if !called || got == nil {
			t.Errorf("%s: done called: %v, with %v; want an error", name, called, got)
		}
	}
}

// TestCheckIgnoresTheBody: a check is decoded without its message's body, so a body that can't be decompressed does no harm.
func TestCheckIgnoresTheBody(t *testing.T) {
	t.Parallel()
	r := &remoting.Record{
		Topic: "orders", Body: []byte("no zlib"), SysFlag: remoting.FlagCompressed, Born: time.Now(), Stored: time.Now(),
		Properties: map[string]string{primitive.PropertyProducerGroup: "g", "CE_id": "1"},
	}
	body, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	check, err := decodeCheck(&brokerConn{name: "b"}, &remoting.Command{Body: body, Ext: map[string]string{}})
	if err != nil || check.Message.Body != nil || check.Message.Properties["CE_id"] != "1" || check.Half.Group != "g" {
		t.Errorf("read %+v (%v)", check, err)
	}
}
