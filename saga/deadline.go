package saga

import (
	"context"
	"errors"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// DeadlinePassed is the content of the event of a deadline. Its type is "saga.deadline." and the saga's name, its subject
// the saga's key.
type DeadlinePassed struct {
	Saga     string `json:"saga"`
	Key      string `json:"key"`
	State    string `json:"state"`    // whose deadline it is
	Revision int64  `json:"revision"` // of the saga when it was armed

	topic string
}

// EventMeta implements rocketflow.Payload.
func (p DeadlinePassed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: p.topic, Type: deadlineType(p.Saga), Subject: p.Key}
}

func deadlineType(saga string) string { return "saga.deadline." + saga }

// timeoutKey is the key of a saga's timeouts; a timeout's name is the state.
func timeoutKey(saga, key string) string { return saga + "/" + key }

// arm arms the deadline of the state that i has entered.
func (s *Saga[S]) arm(ctx context.Context, tx rocketflow.Tx, i Instance[S], entered *state[S]) error {
	l := entered.deadline()
	if l == nil {
		return nil
	}
	at := l.at(&i.Data)
	if at.IsZero() {
		return printable.Errorf("deadline of state %s: no instant", entered.name)
	}
	p := DeadlinePassed{Saga: i.Name, Key: i.Key, State: entered.name, Revision: i.Revision, topic: s.engine.cfg.TimeoutTopic}
	return s.engine.cfg.Timer.Arm(ctx, tx, timeoutKey(i.Name, i.Key), entered.name, at, p)
}

// handleDeadline runs behind the fence, which has found the timeout armed and due.
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
		// While this waited for the lock, an event led to another state and disarmed the deadline.
		return printable.Errorf("deadline of %s, saga %s of %s is in %s: %w", p.State, i.Name, i.Key, i.State, rocketflow.ErrStale)
	}
	run := func(data *S) error {
		if l.fn == nil {
			return nil
		}
		return l.fn(withEvent(ctx, e), tx, data)
	}
	i, err = s.change(ctx, tx, d, i, l.to, cause{eventType: e.Type, id: e.ID, deadline: true}, run)
	if err != nil || !i.waiting {
		return err
	}
	return s.wake(ctx, tx, d, i)
}

// decodeDeadline reads what arm wrote. Anything else matches ErrUndecodable.
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
