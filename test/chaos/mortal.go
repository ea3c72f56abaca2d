package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// mortal is a client that does nothing more once its process is dead, whatever the goroutines that are left of it want.
// What was on its way then may still arrive, as from any process that dies.
type mortal struct {
	*rocketmq.Client
	dead atomic.Bool
}

var errDead = fmt.Errorf("%w: this process is dead", broker.ErrUnavailable)

func (m *mortal) Send(ctx context.Context, message broker.Message) (broker.Receipt, error) {
	if m.dead.Load() {
		return broker.Receipt{}, errDead
	}
	return m.Client.Send(ctx, message)
}

func (m *mortal) SendGroup(ctx context.Context, ms []broker.Message) []error {
	if m.dead.Load() {
		errs := make([]error, len(ms))
		for i := range errs {
			errs[i] = errDead
		}
		return errs
	}
	return m.Client.SendGroup(ctx, ms)
}

func (m *mortal) OpenTransactionProducer(ctx context.Context, group string, check broker.Checker) (broker.TransactionProducer, error) {
	t, err := m.Client.OpenTransactionProducer(ctx, group, func(ctx context.Context, c broker.Check) (broker.Decision, func(error)) {
		if m.dead.Load() {
			return broker.Unknown, nil
		}
		d, done := check(ctx, c)
		if m.dead.Load() {
			d = broker.Unknown
		}
		return d, done
	})
	return &mortalProducer{t, m}, err
}

func (m *mortal) Subscribe(ctx context.Context, s broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	return m.Client.Subscribe(ctx, s, func(ctx context.Context, d broker.Delivery) error {
		if m.dead.Load() {
			return errDead
		}
		if err := h(ctx, d); err != nil || m.dead.Load() {
			return errDead
		}
		return nil
	})
}

type mortalProducer struct {
	broker.TransactionProducer
	of *mortal
}

func (t *mortalProducer) Prepare(ctx context.Context, m broker.Message) (broker.Half, error) {
	if t.of.dead.Load() {
		return broker.Half{}, errDead
	}
	return t.TransactionProducer.Prepare(ctx, m)
}

func (t *mortalProducer) Commit(ctx context.Context, h broker.Half) error {
	if t.of.dead.Load() {
		return errDead
	}
	return t.TransactionProducer.Commit(ctx, h)
}

func (t *mortalProducer) Rollback(ctx context.Context, h broker.Half) error {
	if t.of.dead.Load() {
		return errDead
	}
	return t.TransactionProducer.Rollback(ctx, h)
}
