package handlers

import (
	"context"
	"errors"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

// Without a fence nothing keeps a timeout from firing early or twice, so its event has no effect.
func TestTimeoutWithoutAFenceIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.expired", effect)
	b.start(r)
	e := loose("order.expired", "a")
	e.TimeoutKey, e.TimeoutName = "a", "payment"
	b.broker.publish(e)
	poll.Until(t, "a dead letter", func() bool { return b.parkedCount(DeadLetter) == 1 && b.broker.idle() })
	list, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{})
	if err != nil || len(list) != 1 || list[0].LastError != errUnfenced.Error() {
		t.Errorf("%+v: %v", list, err)
	}
	if n := b.effectCount(); n != 0 {
		t.Errorf("%d effects, want none", n)
	}
}

type requester struct{ rocketflow.Transactor }

func (requester) RequestMissing(context.Context, rocketflow.MissingEvents) error { return nil }

// A router that could not request what the broker has lost is refused, unless the caller says that this is meant.
func TestRouterNeedsARequester(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Requester = nil
	var invalid *rocketflow.FieldError
	if _, err := New(cfg); !errors.As(err, &invalid) || invalid.Field != "handlers.Config.Requester" {
		t.Errorf("%v, want Requester refused", err)
	}
	cfg.Transactor = requester{cfg.Transactor}
	if r, err := New(cfg); err != nil || r.cfg.Requester != Requester(cfg.Transactor.(requester)) {
		t.Errorf("%v: a Transactor that requests is not the Requester", err)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	e := loose("order.placed", "a")
	if p, err := Decode[placed](e); err != nil || p.Order != "a" {
		t.Errorf("%+v: %v", p, err)
	}
	e.Body = []byte("null")
	if _, err := Decode[placed](e); !errors.Is(err, rocketflow.ErrUndecodable) {
		t.Errorf("null: %v", err)
	}
}
