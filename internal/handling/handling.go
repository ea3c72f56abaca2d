// Package handling tells what a handler handles to the packages that its calls reach with its context: which consumer published an
// event, or fired a timeout, and for which event.
package handling

import (
	"context"

	"github.com/rocketflow/rocketflow"
)

// Call is one call of a handler.
type Call struct {
	Consumer string
	Group    string // of the consumer, as handlers.Config names it: without a namespace
	Event    rocketflow.Event
	Attempt  int // the first is 1
}

type key struct{}

// With returns the context for a call.
func With(ctx context.Context, c Call) context.Context { return context.WithValue(ctx, key{}, &c) }

// From returns the call that ctx belongs to, which must not be changed; nil: it belongs to none.
func From(ctx context.Context) *Call {
	c, _ := ctx.Value(key{}).(*Call)
	return c
}
