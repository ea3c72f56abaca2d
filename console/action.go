package console

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
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

// allowed refuses an action that the viewer may not do, and records the attempt.
func (q *request) allowed(a Action, s *Service, filter any) error {
	if q.viewer.May(a) {
		return nil
	}
	q.config.Logger.Warn("an action was refused", "viewer", q.viewer.Name, "action", a, "remote", q.r.RemoteAddr)
	q.recordDenied(a, s, filter)
	return refuse(http.StatusForbidden, "You may not do this", "Your account may not "+string(a)+". The attempt was recorded.")
}

func numberOf(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // 0 for what is no number
	return n
}

// change is what an action would do.
type change struct {
	Action  Action
	Service *Service
	Filter  operate.ParkedFilter
	Event   uuid.UUID // of resend
	Rows    int64     // how many events match
	More    bool      // there are more than that
	Cap     int       // how many are changed at most
	Reason  string
	Problem string // why the form is shown again
}

// changeOf reads an action from the parameters of an address or a form.
func (q *request) changeOf(value func(string) string) (*change, error) {
	c := &change{Action: Action(q.r.PathValue("action")), Cap: q.config.MaxChange, Reason: value("reason")}
	var err error
	if c.Service, err = q.serviceOf(value("service")); err != nil {
		return nil, err
	}
	if text := value("event"); text != "" {
		if c.Filter.EventID, err = uuid.Parse(text); err != nil {
			return nil, refuse(http.StatusBadRequest, "That is no id", "An action on one event needs its id.")
		}
	}
	switch c.Action {
	case Retry, Discard:
		f := &c.Filter
		f.Consumer, f.Source, f.Topic, f.Type = value("consumer"), value("source"), value("topic"), value("type")
		f.Subject, f.Error = value("subject"), value("error")
		f.All = f.EventID == uuid.Nil && f.Consumer+f.Source+f.Topic+f.Type+f.Subject+f.Error == ""
	case Resend:
		if c.Event = c.Filter.EventID; c.Event == uuid.Nil {
			return nil, refuse(http.StatusBadRequest, "Which event?", "The address needs the id of the event.")
		}
	default:
		return nil, refuse(http.StatusNotFound, "No such action", "The console has no action "+printable.Quote(string(c.Action), 100)+".")
	}
	return c, nil
}

// countRows counts what an action would change, up to the cap.
func (q *request) countRows(ctx context.Context, c *change) error {
	if c.Action == Resend {
		c.Rows = 1
		return nil
	}
	f := c.Filter
	if f.EventID != uuid.Nil {
		list, err := c.Service.Operator.DeadLetters(ctx, operate.ParkedFilter{EventID: f.EventID, Consumer: f.Consumer, Limit: 1})
		c.Rows = int64(len(list))
		return err
	}
	page, err := c.Service.Operator.ParkedPage(ctx, operate.ParkedPageFilter{
		Dead: true, Consumer: f.Consumer, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject, Error: f.Error, Limit: c.Cap,
	})
	if err != nil {
		return err
	}
	c.Rows, c.More = int64(len(page.Events)), page.Next != ""
	return nil
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
		return err
	}
	q.show(status, "confirm", "Confirm", c)
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
	if err := q.allowed(c.Action, c.Service, c.Filter); err != nil {
		return err
	}
	if c.Reason == "" {
		c.Problem = "Say why: it is recorded with the change."
		return q.confirm(http.StatusUnprocessableEntity, c)
	}
	n, err := q.change(q.r.Context(), c)
	q.config.Logger.Info("an operator changed something", "viewer", q.viewer.Name, "action", c.Action, "service", c.Service.Name, "events", n,
		"reason", c.Reason, "filter", c.Filter, "error", err)
	if err != nil {
		if n > 0 {
			return refuse(http.StatusInternalServerError, "Not all was done", strconv.Itoa(n)+" were done, then: "+err.Error())
		}
		return badFilter(err)
	}
	if c.Action == Resend {
		return q.redirect("why", "id", c.Event)
	}
	return q.redirect("dead", "done", c.Action, "n", n, "service", c.Service.Name)
}

// change does what was confirmed, and returns to how many events.
func (q *request) change(ctx context.Context, c *change) (int, error) {
	ctx = q.actor(ctx, c.Reason)
	f := c.Filter
	f.Limit = c.Cap
	switch c.Action {
	case Retry:
		return c.Service.Operator.RetryDeadLetters(ctx, f)
	case Discard:
		return c.Service.Operator.DiscardDeadLetters(ctx, f)
	case Resend:
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return c.Service.Operator.Resend(ctx, operate.ResendFilter{IDs: []uuid.UUID{c.Event}})
	}
	return 0, errors.New("no such action")
}
