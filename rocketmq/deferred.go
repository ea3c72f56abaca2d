package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// deferredCalls are the calls that returned without an error although no broker could be reached, because Config.AwaitBroker is
// set. They are tried again until they succeed.
type deferredCalls struct {
	mu    sync.Mutex
	calls []*deferredCall
	added chan struct{} // holds a token when a call was added
}

type deferredCall struct {
	what string // for logs and errors
	do   func(ctx context.Context) error
	err  error // of the last attempt
}

const (
	minDeferredPause = 200 * time.Millisecond
	maxDeferredPause = time.Second
	deferredTimeout  = 15 * time.Second // of one attempt
	idleDeferred     = time.Hour        // pause while no call is deferred; an added call ends it
)

// orDefer returns err, the result of a first call of do, unless err says that no broker can be reached and Config.AwaitBroker is
// set. Then it returns nil, and do is called until it succeeds.
func (c *Client) orDefer(what string, err error, do func(ctx context.Context) error) error {
	if err == nil || !c.config.AwaitBroker || !errors.Is(err, broker.ErrUnavailable) || refused(err) || errors.Is(err, errClientClosed) {
		return err
	}
	c.log.Warn("no broker can be reached; the call is repeated until one can", keyWhat, what, keyError, err)
	c.deferred.add(&deferredCall{what: what, do: do, err: err})
	return nil
}

func (d *deferredCalls) add(call *deferredCall) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	select {
	case d.added <- struct{}{}:
	default:
	}
}

// runDeferred repeats the deferred calls, in their order, until ctx ends.
func (c *Client) runDeferred(ctx context.Context) {
	attempt := 0
	background.Loop{Clock: clock.System{}, Wake: c.deferred.added}.Run(ctx, func(ctx context.Context) time.Duration {
		if c.tryDeferred(ctx) == 0 {
			attempt = 0
			return idleDeferred
		}
		attempt++
		return backoff(attempt-1, minDeferredPause, maxDeferredPause)
	})
}

// tryDeferred tries each deferred call once, and returns how many are left.
func (c *Client) tryDeferred(ctx context.Context) (left int) {
	d := &c.deferred
	d.mu.Lock()
	calls := slices.Clone(d.calls)
	d.mu.Unlock()
	for _, call := range calls {
		attempt, cancel := context.WithTimeout(ctx, deferredTimeout)
		err := call.do(attempt)
		cancel()
		if ctx.Err() != nil {
			return 0
		}
		d.mu.Lock()
		before := call.err
		call.err = err
		if err == nil {
			d.calls = slices.DeleteFunc(d.calls, func(other *deferredCall) bool { return other == call })
		}
		left = len(d.calls)
		d.mu.Unlock()
		switch {
		case err == nil:
			c.log.Info("a call that waited for a broker has succeeded", keyWhat, call.what)
		case refused(err) && fmt.Sprint(before) != err.Error():
			c.log.Error("a call that waited for a broker was refused; it is repeated: fix what the error names", keyWhat, call.what, keyError, err)
		}
	}
	return left
}

// refused reports whether an error is a refusal that only an operator can fix.
func refused(err error) bool {
	return errors.Is(err, broker.ErrRejected) || errors.As(err, new(*remoting.TLSError))
}

// err returns an error that lists the deferred calls with the reason of each, or nil if there are none.
func (d *deferredCalls) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, call := range d.calls {
		errs = append(errs, printable.Errorf("%s: %w", call.what, call.err))
	}
	return errors.Join(errs...)
}
