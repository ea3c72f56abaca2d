package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/operate"
)

// redacted returns what is shown of a body.
func (q *request) redacted(c Content) (data []byte, err error) {
	if q.config.Redact == nil {
		return c.Body, nil
	}
	if problem := guard.Run(func() { data = q.config.Redact(c) }); problem != nil {
		q.config.Logger.Error("a function of the application failed; the body is not shown", "function", "console.Config.Redact", "error", problem)
		return nil, refuse(http.StatusInternalServerError, "The body can't be shown", "console.Config.Redact failed: see the log.")
	}
	return data, nil
}

// redirect sends the browser to a page, so that loading it again repeats nothing.
func (q *request) redirect(page string, pairs ...any) error {
	http.Redirect(q.w, q.r, link(q.config.Prefix, page, pairs...), http.StatusSeeOther)
	return nil
}

// allowed refuses an action on services that the viewer may not do, and records the attempt.
func (q *request) allowed(a Action, services []Service, filter any) error {
	if q.viewer.May(a) {
		return nil
	}
	text := "Your account may not " + string(a) + "."
	err := q.recordDenied(a, services, filter)
	if err == nil {
		text += " The attempt was recorded."
	}
	q.config.Logger.Warn("an action was refused", "viewer", q.viewer.Name, "action", a, "remote", q.r.RemoteAddr, "recorded", err == nil, "error", err)
	return refuse(http.StatusForbidden, "You may not do this", text)
}

// confirmPage says what an action would change, and asks for the reason.
func (q *request) confirmPage() error {
	c, err := q.changeOf(q.arg)
	if err != nil {
		return err
	}
	if !q.viewer.May(c.Action) {
		return refuse(http.StatusForbidden, "You may not do this", "Your account may not "+string(c.Action)+".")
	}
	return q.confirm(http.StatusOK, c)
}

func (q *request) confirm(status int, c *change) error {
	if err := q.countRows(q.r.Context(), c); err != nil {
		return badFilter(err)
	}
	q.show(status, "confirm", c.Verb(), c)
	return nil
}

// act does what was confirmed.
func (q *request) act() error {
	if err := q.r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, "The form can't be read", err.Error())
	}
	c, err := q.changeOf(func(name string) string { return clean(q.r.PostForm.Get(name)) })
	if err != nil {
		return err
	}
	if err := q.allowed(c.Action, []Service{*c.Service}, c.Fields()); err != nil {
		return err
	}
	switch {
	case c.Edit != nil:
		err = q.editFrom(c)
	case c.Apply != nil:
		err = q.applyFrom(c)
	}
	if err != nil {
		return err
	}
	if c.Problem = c.check(); c.Problem != "" {
		return q.confirm(http.StatusUnprocessableEntity, c)
	}
	n, err := q.change(q.r.Context(), c)
	q.reads.forget() // the next page tells what has become of it
	q.config.Logger.Info("an operator changed something", "viewer", q.viewer.Name, "action", c.Action, "service", c.Service.Name, "changed", n,
		"reason", c.Reason, "selected", c.Fields(), "error", err)
	if err != nil {
		return q.failed(c, n, err)
	}
	page, pairs := c.Back()
	if _, paced := c.limit(); paced { // the form of the next action
		page, pairs = c.form("rate", c.PerSecond, "left", "yes")
	}
	return q.redirect(page, append(pairs, "done", c.Action, "n", n)...)
}

// failed answers an action that ended with an error after n things.
func (q *request) failed(c *change, n int, err error) error {
	var first *operate.FirstFailedError
	var invalid *rocketflow.FieldError
	var reserved *broker.ReservedPropertyError
	written := c.Edit != nil || c.Apply != nil || c.Action == RedirectRejected // the form has more than a reason
	switch {
	case errors.As(err, &first):
		return refuse(http.StatusConflict, "The first one was not handled", err.Error()+". The others were not retried.")
	case errors.Is(err, operate.ErrDeadLetterChanged):
		c.Problem = "It has changed since you have read it: what it is now is below, and what you have written is kept. Compare them, and send it again."
		c.Edit.Version = ""
		return q.confirm(http.StatusConflict, c)
	case errors.Is(err, operate.ErrSagaChanged):
		c.Problem = "The saga has changed since you have read it: see its state below. What you have written is kept. If the event still fits, send it again."
		c.Apply.Event.Revision = 0
		return q.confirm(http.StatusConflict, c)
	case errors.Is(err, operate.ErrEventApplied):
		return refuse(http.StatusConflict, "This form was sent before", "Its event is applied already, and was not applied a second time. See the history and the waiting events on the saga's page. To apply another event, begin there.")
	case written && errors.As(err, &invalid):
		c.Problem = invalid.Error()
		return q.confirm(http.StatusUnprocessableEntity, c)
	case written && errors.As(err, &reserved):
		c.Problem = reserved.Error()
		return q.confirm(http.StatusUnprocessableEntity, c)
	case n > 0:
		return refuse(http.StatusInternalServerError, "Not all was done", fmt.Sprintf("%d were done, then: %v", n, err))
	}
	for _, known := range []error{
		operate.ErrNoGap, operate.ErrUnknownDeadLetter, operate.ErrUnknownTimeout, operate.ErrUnknownConsumer, operate.ErrUnknownHandler, operate.ErrTooManyPauses,
		operate.ErrUnknownSaga,
	} {
		if errors.Is(err, known) {
			return refuse(http.StatusConflict, "It can't be done", err.Error())
		}
	}
	return badFilter(err)
}

// change does what was confirmed, and returns how many things it has changed.
func (q *request) change(ctx context.Context, c *change) (int, error) {
	ctx = q.actor(ctx, c.Reason)
	o := c.Service.Operator
	f := c.Filter
	f.Limit, _ = c.limit()
	c.Rejected.Limit, c.Waiting.Limit = f.Limit, f.Limit
	switch c.Action {
	case Retry:
		return o.RetryCarefully(ctx, f, operate.RetryOptions{TryFirst: c.TryFirst && f.EventID == uuid.Nil, Rate: c.rate})
	case Edit:
		return one(true, o.EditDeadLetter(ctx, operate.DeadLetterRef{Consumer: f.Consumer, EventID: f.EventID, Source: f.Source}, c.Edit.edit()))
	case Discard:
		return o.DiscardDeadLetters(ctx, f)
	case AcceptGap:
		return one(true, o.AcceptGap(ctx, f.Consumer, f.EventID))
	case Resend:
		return o.Resend(ctx, operate.ResendFilter{IDs: []uuid.UUID{f.EventID}})
	case RetryRejected:
		return o.RetryRejected(ctx, c.Rejected)
	case RedirectRejected:
		return o.RedirectRejected(ctx, c.Rejected, c.To)
	case DiscardRejected:
		return o.DiscardRejected(ctx, c.Rejected, c.Reason)
	case ApplyEvent:
		_, err := o.ApplyToSaga(ctx, c.Apply.Event)
		return one(true, err)
	case RetryWaiting:
		return o.RetryWaiting(ctx, c.Waiting)
	case DiscardWaiting:
		return o.DiscardWaiting(ctx, c.Waiting)
	case Pause:
		return one(o.Pause(ctx, c.Pause))
	case Resume:
		return one(o.Resume(ctx, c.Pause))
	case FireTimeout:
		return one(true, o.FireTimeout(ctx, c.Timeout))
	case MoveTimeout:
		return one(true, o.MoveTimeout(ctx, c.Timeout, c.at))
	case DisarmTimeout:
		return one(true, o.DisarmTimeout(ctx, c.Timeout))
	}
	return 0, errors.New("no such action")
}

// one is the number of things that were changed, of one.
func one(changed bool, err error) (int, error) {
	if err != nil || !changed {
		return 0, err
	}
	return 1, nil
}
