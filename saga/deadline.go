package saga

import (
	"context"
	"errors"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// DeadlinePassed is the payload of a deadline's event. The type of the event is "saga.deadline." and the saga's name, its
// subject is the saga's key. The engine handles it.
type DeadlinePassed struct {
	// Saga and Key identify the saga.
	Saga string `json:"saga"`
	Key  string `json:"key"`
	// State is the state whose deadline it is.
	State string `json:"state"`
	// Revision is the saga's revision when the deadline was armed.
	Revision int64 `json:"revision"`

	topic string
}

// EventMeta implements rocketflow.Payload.
func (p DeadlinePassed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: p.topic, Type: deadlineType(p.Saga), Subject: p.Key}
}

// deadlineType returns the type of a saga's deadline events.
func deadlineType(saga string) string { return "saga.deadline." + saga }

// timeoutKey returns the key of a saga's timeouts. The name of a timeout is the state whose deadline it is.
func timeoutKey(saga, key string) string { return saga + "/" + key }

// arm arms the deadline, if any, of the state that i has entered.
func (s *Saga[S]) arm(ctx context.Context, tx rocketflow.Tx, i Instance[S], entered *state[S]) error {
	l := entered.deadline()
	if l == nil {
		return nil
	}
	at := l.at(&i.Data)
	if at.IsZero() {
		return printable.Errorf("deadline of state %s: the function of Deadline returned the zero time", entered.name)
	}
	p := DeadlinePassed{Saga: i.Name, Key: i.Key, State: entered.name, Revision: i.Revision, topic: s.engine.cfg.TimeoutTopic}
	return s.engine.cfg.Timer.Arm(ctx, tx, timeoutKey(i.Name, i.Key), entered.name, at, p)
}

// handleDeadline handles the event of a deadline. It runs behind the fence, which has found the timeout armed and due.
func (s *Saga[S]) handleDeadline(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	p, err := decodeDeadline(e, s.latest.name)
	if err != nil {
		return err
	}
	i, err := s.lock(ctx, tx, p.Key)
	if errors.Is(err, ErrNotFound) {
		return printable.Errorf("deadline of %s: %w", p.State, rocketflow.ErrStale)
	}
	if err != nil {
		return err
	}
	if i.Finished() {
		return printable.Errorf("deadline of %s, saga %s of %s is finished: %w", p.State, i.Name, i.Key, rocketflow.ErrStale)
	}
	d, err := s.definition(i)
	if err != nil {
		return err
	}
	l := d.find(p.State).deadline()
	if i.State != p.State || l == nil {
		// While this waited for the lock, another transaction left the state and disarmed the deadline.
		return printable.Errorf("deadline of %s, saga %s of %s is in %s: %w", p.State, i.Name, i.Key, i.State, rocketflow.ErrStale)
	}
	run := func(ctx context.Context, data *S) error {
		if l.fn == nil {
			return nil
		}
		return l.fn(withEvent(ctx, e), tx, data)
	}
	i, err = s.change(ctx, tx, d, i, l.to, cause{eventType: e.Type, id: e.ID, deadline: true}, run)
	if err != nil || !i.waiting {
		return err
	}
	return s.applyAll(ctx, tx, d, i)
}

// decodeDeadline decodes the payload that arm encoded. For any other payload it returns an error that matches
// rocketflow.ErrUndecodable.
func decodeDeadline(e rocketflow.Event, saga string) (DeadlinePassed, error) {
	p, err := wire.DecodeBody[DeadlinePassed](e)
	if err != nil {
		return p, err
	}
	if p.Saga != saga || p.Key == "" || p.State == "" || p.Revision < 1 ||
		e.TimeoutKey != timeoutKey(p.Saga, p.Key) || e.TimeoutName != p.State {
		return p, printable.Errorf("%w: %s: not the deadline of timeout %s of %s", rocketflow.ErrUndecodable, e.Type, e.TimeoutName, e.TimeoutKey)
	}
	return p, nil
}
