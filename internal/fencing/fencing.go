// Package fencing lets who calls the handler of a timeout's event see whether the timeout's fence stood before it. The
// fence and the caller don't know each other; both know the context.
package fencing

import (
	"context"
	"sync/atomic"
)

// Record tells whether a fence has judged the event of a call.
type Record struct{ passed atomic.Bool }

// Passed reports whether a fence has judged the event.
func (r *Record) Passed() bool { return r.passed.Load() }

type key struct{}

// Watch returns a context for one call of a handler, and what a fence in it will say.
func Watch(ctx context.Context) (context.Context, *Record) {
	r := &Record{}
	return context.WithValue(ctx, key{}, r), r
}

// Pass notes that a fence has judged the event of the call that ctx belongs to.
func Pass(ctx context.Context) {
	if r, ok := ctx.Value(key{}).(*Record); ok {
		r.passed.Store(true)
	}
}
