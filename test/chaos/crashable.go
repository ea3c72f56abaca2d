package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// crashable is a RocketMQ client that sends and acknowledges nothing after its simulated process has crashed, whatever the
// goroutines of the process still do. Requests that were on their way may arrive, as with a process that is killed.
type crashable struct {
	*rocketmq.Client
	crashed atomic.Bool
}

var errCrashed = fmt.Errorf("%w: this process has crashed", broker.ErrUnavailable)

func (m *crashable) Send(ctx context.Context, message broker.Message) (broker.Receipt, error) {
	if m.crashed.Load() {
		return broker.Receipt{}, errCrashed
	}
	return m.Client.Send(ctx, message)
}

func (m *crashable) SendGroup(ctx context.Context, ms []broker.Message) []error {
	if m.crashed.Load() {
		errs := make([]error, len(ms))
		for i := range errs {
			errs[i] = errCrashed
		}
		return errs
	}
	return m.Client.SendGroup(ctx, ms)
}

func (m *crashable) OpenTransactionProducer(ctx context.Context, group string, check broker.Checker) (broker.TransactionProducer, error) {
	t, err := m.Client.OpenTransactionProducer(ctx, group, func(ctx context.Context, c broker.Check) (broker.Decision, func(error)) {
		if m.crashed.Load() {
			return broker.Unknown, nil
		}
		d, done := check(ctx, c)
		if m.crashed.Load() {
			d = broker.Unknown
		}
		return d, done
	})
	return &crashableProducer{t, m}, err
}

func (m *crashable) Subscribe(ctx context.Context, s broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	return m.Client.Subscribe(ctx, s, func(ctx context.Context, d broker.Delivery) error {
		if m.crashed.Load() {
			return errCrashed
		}
		if err := h(ctx, d); err != nil || m.crashed.Load() {
			return errCrashed
		}
		return nil
	})
}

// crashableProducer is a transaction producer of a crashable client.
type crashableProducer struct {
	broker.TransactionProducer
	of *crashable
}

func (t *crashableProducer) Prepare(ctx context.Context, m broker.Message) (broker.Half, error) {
	if t.of.crashed.Load() {
		return broker.Half{}, errCrashed
	}
	return t.TransactionProducer.Prepare(ctx, m)
}

func (t *crashableProducer) Commit(ctx context.Context, h broker.Half) error {
	if t.of.crashed.Load() {
		return errCrashed
	}
	return t.TransactionProducer.Commit(ctx, h)
}

func (t *crashableProducer) Rollback(ctx context.Context, h broker.Half) error {
	if t.of.crashed.Load() {
		return errCrashed
	}
	return t.TransactionProducer.Rollback(ctx, h)
}
