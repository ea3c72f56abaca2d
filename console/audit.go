package console

import "context"

// actor returns a context in which changes are made in the viewer's name.
func (q *request) actor(ctx context.Context, _ string) context.Context { return ctx }

// recordDenied records an attempt at what the viewer may not do.
func (q *request) recordDenied(Action, *Service, any) {}
