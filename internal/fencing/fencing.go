// Package fencing connects packages handlers and timeout, which don't import each other: handlers calls Watch before it calls
// a handler, the fence of package timeout calls Pass, and handlers refuses the event of a timeout if no fence has run.
package fencing

import (
	"context"
	"sync/atomic"
)

// Record is the result of one watched call.
type Record struct{ passed atomic.Bool }

// Passed reports whether a fence has run for the event of the call.
func (r *Record) Passed() bool { return r.passed.Load() }

type key struct{}

// Watch returns the context for one call of a handler, and the Record that a fence sets in it.
func Watch(ctx context.Context) (context.Context, *Record) {
	r := &Record{}
	return context.WithValue(ctx, key{}, r), r
}

// Pass notes in the Record of ctx, if there is one, that a fence has run.
func Pass(ctx context.Context) {
	if r, ok := ctx.Value(key{}).(*Record); ok {
		r.passed.Store(true)
	}
}
