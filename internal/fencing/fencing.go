// Package fencing reports whether a timeout's fence has run before a handler. Package handlers watches the call of a handler,
// and package timeout notes in the context of the call that its fence has run; neither imports the other.
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
