package handlers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/fencing"
	"github.com/rocketflow/rocketflow/internal/handling"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// EventFrom returns the event that a handler was called for, with its id, sequence and headers. ctx must be derived from the
// handler's context; for any other EventFrom returns false.
func EventFrom(ctx context.Context) (rocketflow.Event, bool) {
	c := handling.From(ctx)
	if c == nil {
		return rocketflow.Event{}, false
	}
	return c.Event, true
}

// Attempt returns which attempt at its event a handler makes; the first is 1. ctx must be derived from the handler's context;
// for any other Attempt returns 0.
func Attempt(ctx context.Context) int {
	if c := handling.From(ctx); c != nil {
		return c.Attempt
	}
	return 0
}

// Consumer returns the name of the consumer that a handler belongs to. ctx must be derived from the handler's context; for
// any other Consumer returns an empty string.
func Consumer(ctx context.Context) string {
	if c := handling.From(ctx); c != nil {
		return c.Consumer
	}
	return ""
}

// Group returns the name of the consumer group, at the broker, of the consumer that a handler belongs to, without a namespace. ctx must be
// derived from the handler's context; for any other Group returns an empty string.
func Group(ctx context.Context) string {
	if c := handling.From(ctx); c != nil {
		return c.Group
	}
	return ""
}

// PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any    // what the handler panicked with
	Stack []byte // of the goroutine that panicked
}

// Error returns the value as text, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// handlerError is an error that a handler returned, as opposed to one of the router or of Postgres.
type handlerError struct {
	err  error
	late bool // its deadline had passed
}

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

var (
	errEnds     = errors.New("the router ends the transaction of a handler, not the handler")
	errAborted  = errors.New("handler returned nil after an error of Postgres that aborted its transaction")
	errGoexit   = errors.New("handler ended its goroutine (runtime.Goexit, as testing.T.FailNow does)")
	errUnfenced = errors.New("the event of a timeout reached a handler without timeout.Scheduler.Fence, so the timeout could fire twice or after it was disarmed: " +
		"register the fence with Router.Use")
)

// unresponsiveAfter is how long a handler has to return once its context has ended, before it is abandoned.
const unresponsiveAfter = 5 * time.Second

// call runs the handler of one event and returns how long it took. Every error is a *handlerError.
//
// The handler has a goroutine of its own, so that runtime.Goexit, or a handler that ignores the end of its context, doesn't
// end or block a lane. The transaction of an abandoned handler is closed.
func (c *consumer) call(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event, attempt int) (took time.Duration, err error) {
	if wire.Undecoded(e) { // a dead letter that was retried
		return 0, &handlerError{err: Dead(fmt.Errorf("%w: its message could not be decoded when it was delivered", rocketflow.ErrUndecodable))}
	}
	handler := c.handler(e)
	ctx, cancel := context.WithTimeout(handling.With(ctx, handling.Call{Consumer: c.name, Group: c.cfg.GroupPrefix + c.name, Event: e, Attempt: attempt}), c.opts.Timeout)
	defer cancel()
	var fence *fencing.Record
	if e.TimeoutName != "" {
		ctx, fence = fencing.Watch(ctx)
	}
	guarded := newHandlerTx(tx)
	start := time.Now()
	returned := make(chan error, 1)
	if !c.handling.Go(func(context.Context) { c.guard(ctx, guarded, e, handler, returned) }) {
		return 0, &handlerError{err: errStopped}
	}
	select {
	case err = <-returned:
	case <-ctx.Done():
		if err = c.awaitReturn(e, start, guarded, returned); errors.Is(err, errUnresponsive) {
			return time.Since(start), &handlerError{err: err, late: true}
		}
	}
	took = time.Since(start)
	if err == nil {
		switch status(tx) {
		case 'E':
			err = errAborted
		case 'I':
			err = errEnds // by a COMMIT or ROLLBACK of its own
		}
	}
	if err == nil && fence != nil && !fence.Passed() {
		err = Dead(errUnfenced)
	}
	if err == nil {
		return took, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return took, &handlerError{err: fmt.Errorf("deadline of %v passed: %w", c.opts.Timeout, err), late: true}
	}
	return took, &handlerError{err: err}
}

// guard calls the handler and sends to returned how it ended: its error, a panic or runtime.Goexit.
func (c *consumer) guard(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event, handler rocketflow.HandlerFunc, returned chan<- error) {
	err := errGoexit
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			c.logger(e).Error("a handler panicked; its transaction is rolled back and its event counts an attempt: fix the handler", keyError, logText(fmt.Errorf("%v", v)), keyStack, string(stack))
			c.cfg.Listener.Panicked(PanickedInfo{c.info(e), v, stack})
			err = &PanicError{Value: v, Stack: stack}
		}
		returned <- err
	}()
	err = handler(ctx, tx, e)
}

var errUnresponsive = errors.New("handler ignores that its context ended")

// awaitReturn waits for a handler whose context has ended, for at most unresponsiveAfter. Then it abandons the handler: it
// closes its transaction and lists it in Router.Err until it returns.
func (c *consumer) awaitReturn(e rocketflow.Event, start time.Time, tx *handlerTx, returned chan error) error {
	grace := time.NewTimer(c.cfg.unresponsiveAfter)
	defer grace.Stop()
	select {
	case err := <-returned:
		return err
	case <-grace.C:
	}
	tx.abandon()
	id := c.unresponsive.add(e, start)
	c.logger(e).Error("a handler ignores that its context ended; its transaction is rolled back, its event counts an attempt, and its goroutine is left behind until it returns: fix the handler, so that it returns when its context ends",
		keyRunning, time.Since(start))
	c.cfg.Listener.Unresponsive(UnresponsiveInfo{c.info(e), time.Since(start)})
	c.handling.Go(func(context.Context) {
		<-returned //nolint:errcheck // of a transaction that was given up
		c.unresponsive.remove(id)
		c.logger(e).Warn("a handler that ignored the end of its context has returned", keyRunning, time.Since(start))
	})
	return fmt.Errorf("deadline of %v passed: %w", c.opts.Timeout, errUnresponsive)
}
