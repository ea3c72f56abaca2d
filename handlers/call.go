package handlers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rocketflow/rocketflow"
)

type handling struct {
	consumer string
	event    rocketflow.Event
	attempt  int
}

type handlingKey struct{}

// EventFrom returns the event that is being handled, with its id, sequence and headers. false: ctx is no handler's.
func EventFrom(ctx context.Context) (rocketflow.Event, bool) {
	h, ok := ctx.Value(handlingKey{}).(*handling)
	if !ok {
		return rocketflow.Event{}, false
	}
	return h.event, true
}

// Attempt returns which attempt at its event the handler is making, beginning with 1; 0: ctx is no handler's.
func Attempt(ctx context.Context) int {
	if h, ok := ctx.Value(handlingKey{}).(*handling); ok {
		return h.attempt
	}
	return 0
}

// Consumer returns the name of the consumer whose handler runs; empty: ctx is no handler's.
func Consumer(ctx context.Context) string {
	if h, ok := ctx.Value(handlingKey{}).(*handling); ok {
		return h.consumer
	}
	return ""
}

// PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// handlerError is what a handler returned, as opposed to what went wrong around it.
type handlerError struct {
	err  error
	late bool // its deadline had passed
}

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

var (
	errEnds    = errors.New("the router ends the transaction of a handler, not the handler")
	errAborted = errors.New("handler returned nil after an error of Postgres that aborted its transaction")
)

// handlerTx keeps a handler from ending the transaction: the record that the event was handled must be in it.
type handlerTx struct{ rocketflow.Tx }

func (handlerTx) Commit(context.Context) error   { return errEnds }
func (handlerTx) Rollback(context.Context) error { return errEnds }

// call runs the handler of one event and returns how long it took. Every error is a *handlerError.
func (c *consumer) call(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event, attempt int) (took time.Duration, err error) {
	handler := c.handler(e)
	if handler == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, handlingKey{}, &handling{c.name, e, attempt}), c.cfg.Timeout)
	defer cancel()
	start := time.Now()
	err = c.guarded(ctx, handlerTx{tx}, e, handler)
	took = time.Since(start)
	if err == nil {
		switch tx.Conn().PgConn().TxStatus() {
		case 'E':
			err = errAborted
		case 'I':
			err = errEnds // by a COMMIT or ROLLBACK of its own
		}
	}
	if err == nil {
		return took, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return took, &handlerError{err: fmt.Errorf("deadline of %v passed: %w", c.cfg.Timeout, err), late: true}
	}
	return took, &handlerError{err: err}
}

func (c *consumer) guarded(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event, handler rocketflow.HandlerFunc) (err error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			c.cfg.Logger.Error("handler panicked", keyConsumer, c.name, keyEvent, e.ID, keyType, e.Type, keyError, v, keyStack, string(stack))
			c.cfg.Listener.Panicked(PanickedInfo{c.info(e), v, stack})
			err = &PanicError{Value: v, Stack: stack}
		}
	}()
	return handler(ctx, tx, e)
}
