package console

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/guard"
)

// Viewer is who makes a request, and what they may see and do. The zero Viewer may read everything but bodies, and change nothing.
type Viewer struct {
	// Name is who it is, for the record of what they do.
	// Defaults to "unknown".
	Name string
	// Bodies allows to see the bodies, headers and extension attributes of events and the data of sagas, as Config.Redact returns them.
	Bodies bool
	// Actions are what the viewer may do.
	// Defaults to none.
	Actions []Action
}

// May reports whether a viewer may do something.
func (v Viewer) May(a Action) bool {
	return slices.Contains(v.Actions, a) && (a != Edit || v.Bodies) // what can't be seen can't be edited
}

// Action is something that a viewer may be allowed to do.
type Action string

// The values of Action.
const (
	Retry     Action = "retry"      // make dead letters due again
	Edit      Action = "edit"       // change the content of a dead letter, and make it due; it takes Viewer.Bodies, too
	Discard   Action = "discard"    // give dead letters up
	AcceptGap Action = "accept-gap" // handle an event although its predecessor is missing
	Resend    Action = "resend"     // send an event of the outbox again
	// Owed events that the broker rejects: make them due, move them to another topic, give them up.
	RetryRejected    Action = "retry-rejected"
	RedirectRejected Action = "redirect-rejected"
	DiscardRejected  Action = "discard-rejected"
	// A saga: give it an event; make those that wait for it due again, give them up.
	ApplyEvent     Action = "apply-event"
	RetryWaiting   Action = "retry-waiting"
	DiscardWaiting Action = "discard-waiting"

	Pause         Action = "pause"          // pause a consumer, a handler or a stream
	Resume        Action = "resume"         // end a pause
	FireTimeout   Action = "fire-timeout"   // make a timeout due now
	MoveTimeout   Action = "move-timeout"   // change when a timeout fires
	DisarmTimeout Action = "disarm-timeout" // have a timeout never fire
	Examine       Action = "examine"        // have the doctor look now
	Reconcile     Action = "reconcile"      // compare what was published with what is handled now
)

// AllActions returns every Action.
func AllActions() []Action {
	return []Action{
		Retry, Edit, Discard, AcceptGap, Resend, RetryRejected, RedirectRejected, DiscardRejected, ApplyEvent, RetryWaiting, DiscardWaiting,
		Pause, Resume, FireTimeout, MoveTimeout, DisarmTimeout, Examine, Reconcile,
	}
}

// unnamed is the name of viewers without one.
const unnamed = "unknown"

// errNoAnswer is the refusal of a request whose Authorize panicked.
var errNoAnswer = errors.New("console.Config.Authorize failed")

type viewerKey struct{}

// viewerOf returns who makes an authorized request.
func viewerOf(ctx context.Context) Viewer {
	v, _ := ctx.Value(viewerKey{}).(Viewer)
	return v
}

// authorized calls next for requests that Config.Authorize accepts.
func (c *Console) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var viewer Viewer
		err := errNoAnswer
		if problem := guard.Run(func() { viewer, err = c.config.Authorize(r) }); problem != nil {
			c.config.Logger.Error("a function of the application failed; the request was refused", "function", "console.Config.Authorize", "error", problem)
			err = errNoAnswer
		}
		if err != nil {
			c.config.Logger.Info("a request was refused", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
			http.Error(w, "You may not see this.", http.StatusForbidden)
			return
		}
		if viewer.Name == "" {
			viewer.Name = unnamed
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), viewerKey{}, viewer)))
	})
}

// policy is the Content-Security-Policy of all answers.
const policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// protected sets headers that bound what a page can do, and refuses requests for other hosts and changes by other origins.
func (c *Console) protected(next http.Handler) http.Handler {
	next = c.origins.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if len(c.config.Hosts) > 0 && !slices.Contains(c.config.Hosts, hostOf(r.Host)) {
			http.Error(w, "This host name is not one of the console's.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf returns a Host header without its port and the brackets of an IPv6 address.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}
