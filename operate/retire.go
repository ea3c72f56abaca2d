package operate

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

var (
	// ErrUnknownHandler means that the consumer has no record of the handler.
	ErrUnknownHandler = errors.New("the consumer has no record of such a handler")
	// ErrUnknownStream means that the consumer has no position in the stream.
	ErrUnknownStream = errors.New("the consumer has no position in the stream")
)

// Handler identifies a handler of a consumer. An empty Type is that of messages without a tag (handlers.Untagged).
type Handler struct {
	Consumer string `json:"consumer"`
	Topic    string `json:"topic"`
	Type     string `json:"type"`
}

func (h Handler) check() error {
	switch "" {
	case h.Consumer:
		return valid.Field("operate.Handler.Consumer", "missing")
	case h.Topic:
		return valid.Field("operate.Handler.Topic", "missing")
	}
	return nil
}

// RetireHandler records that a consumer no longer handles a type of event, and returns how many events waited for the
// handler. All processes that run the consumer skip those events and new ones: they settle them without a handler. Retire a
// handler when no process has it and the deployment that removed it will not be rolled back. A process that starts with the
// handler records it again. The error matches ErrUnknownHandler if the handler isn't recorded and no event waits for it.
func (o *Operator) RetireHandler(ctx context.Context, h Handler) (waited int, err error) {
	if err := h.check(); err != nil {
		return 0, err
	}
	op, err := o.operation(ctx, ActionRetireHandler, h)
	if err != nil {
		return 0, err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (changed, error) {
		n, recorded, err := o.inbox.Consumer(h.Consumer).Retire(ctx, tx, inbox.Route{Topic: h.Topic, Type: h.Type})
		waited = int(n)
		if err == nil && !recorded && n == 0 {
			err = ErrUnknownHandler
		}
		return changed{n: waited, record: true, before: map[string]any{"registered": recorded}, after: map[string]any{"registered": false}}, err
	})
	if err != nil {
		return 0, printable.Errorf("retire the handler of consumer %s for type %s on topic %s: %w", h.Consumer, h.Type, h.Topic, err)
	}
	return waited, nil
}

// ResetPosition sets a consumer's position in a stream, in either direction. Events after sequence are handled when they are
// delivered, or delivered again. Events up to sequence count as handled; if one of them is parked, it becomes a dead letter
// when it is due. Use it for a stream whose position a wrong or forged event has moved. The error matches ErrUnknownStream if
// the consumer has no position in the stream.
func (o *Operator) ResetPosition(ctx context.Context, consumer string, s rocketflow.Stream, sequence int64) error {
	if sequence < 0 {
		return valid.Fieldf("sequence", "%d: want 0 or more", sequence)
	}
	op, err := o.operation(ctx, ActionResetPosition, map[string]string{"consumer": consumer, "source": s.Source, "topic": s.Topic, "subject": s.Subject})
	if err != nil {
		return err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (changed, error) {
		before, known, err := o.inbox.Consumer(consumer).ResetPosition(ctx, tx, s, sequence)
		if err == nil && !known {
			err = ErrUnknownStream
		}
		return changed{n: 1, ids: []string{s.Subject}, before: map[string]int64{"sequence": before}, after: map[string]int64{"sequence": sequence}}, err
	})
	if err != nil {
		return printable.Errorf("reset the position of consumer %s in stream %v: %w", consumer, s, err)
	}
	return nil
}
