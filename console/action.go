package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
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
	text := "Your account may not " + string(a) + "."
	err := q.recordDenied(a, s, filter)
	if err == nil {
		text += " The attempt was recorded."
	}
	q.config.Logger.Warn("an action was refused", "viewer", q.viewer.Name, "action", a, "remote", q.r.RemoteAddr, "recorded", err == nil, "error", err)
	return refuse(http.StatusForbidden, "You may not do this", text)
}

func numberOf(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // 0 for what is no number
	return n
}

// change is what an action would do.
type change struct {
	Action  Action
	Service *Service
	Cap     int // how many things are changed at most
	Shown   int // how many the confirmed form named, of which no more are changed; 0: it named none
	Reason  string
	// TryFirst retries one dead letter, and the others only once that one is handled.
	TryFirst bool
	// PerSecond is how many dead letters become due per second, as the form has it. Empty: all at once.
	PerSecond string
	At        string         // the new time of a timeout, as the form has it
	To        string         // the new topic of rejected events, as the form has it
	Problem   string         // why the form is shown again
	Rows      int64          // how many things match
	More      bool           // there are more than that
	Partial   bool           // not all were looked at
	LookedTo  time.Time      // of dead letters: what was parked later was not looked at; zero: all was
	After     operate.Cursor // where looking for what matches began: before it nothing does. Empty: at the beginning
	Next      operate.Cursor // where it goes on, if nothing was found so far
	Facts     []Field        // about the only thing that matches, for the page
	LastError string         // of it

	Filter   operate.ParkedFilter // of retry and discard; of resend, its EventID; of edit and accept-gap, one event
	Rejected operate.RejectedFilter
	Waiting  operate.WaitingFilter
	Pause    operate.PauseTarget
	Timeout  operate.TimeoutRef
	Edit     *editing  // of edit
	Apply    *applying // of apply-event
	at       time.Time
	rate     float64 // 0: no limit
}

// pacedFor is how long an action makes dead letters due at a rate: the browser waits for the answer. What is left then needs another.
const pacedFor = 30 * time.Second

// limit returns how many things the action changes at most, and whether that is less than was confirmed.
func (c *change) limit() (n int, paced bool) {
	n = cmp.Or(c.Shown, c.Cap)
	if most := c.rate * pacedFor.Seconds(); c.rate > 0 && most < float64(n) {
		return max(1, int(most)), n > 1
	}
	return n, false
}

// PacedFor is for the page.
func (c *change) PacedFor() time.Duration { return pacedFor }

// check reads what the viewer has typed into the form, and returns what is wrong with it.
func (c *change) check() (problem string) {
	var err error
	switch {
	case c.Edit != nil && c.Edit.problem() != "":
		return c.Edit.problem()
	case c.Apply != nil && c.Apply.problem() != "":
		return c.Apply.problem()
	case c.Action == RedirectRejected && (c.To == "" || c.To == c.Rejected.Topic):
		return "Name the topic to which they go instead."
	case c.Reason == "":
		return "Say why: it is recorded with the change."
	case c.Action == MoveTimeout:
		if c.at, err = timeOf(c.At); err != nil || c.At == "" {
			return "Give the new time as 2006-01-02 15:04, in UTC."
		}
	case c.Action == Retry && c.PerSecond != "":
		if c.rate, err = strconv.ParseFloat(c.PerSecond, 64); err != nil || !(c.rate > 0) || math.IsInf(c.rate, 0) { // not NaN either
			return "Give the rate as a number of dead letters per second, such as 5 or 0.5, or leave it empty."
		}
	}
	return ""
}

// fields are the names of what an action selects, in addresses and forms, with their titles on the page.
var fields = []struct{ Name, Title string }{
	{"consumer", "Consumer"}, {"kind", "Kind"}, {"saga", "Saga"}, {"topic", "Topic"}, {"type", "Type"}, {"source", "Source"}, {"subject", "Subject"},
	{"error", "Error"}, {"event", "Event"}, {"key", "Key"}, {"name", "Name"}, {"waiting", "Number"}, {"status", "Status"},
}

// Field is a part of what an action selects, or a fact about it.
type Field struct{ Name, Title, Value string }

// Fields returns what the action selects, for the page and its form.
func (c *change) Fields() (list []Field) {
	value := map[string]string{}
	id := func(id uuid.UUID) string {
		if id == uuid.Nil {
			return ""
		}
		return id.String()
	}
	switch c.Action {
	case Retry, Edit, Discard, AcceptGap, Resend:
		f := c.Filter
		value = map[string]string{
			"consumer": f.Consumer, "topic": f.Topic, "type": f.Type, "source": f.Source, "subject": f.Subject, "error": f.Error, "event": id(f.EventID),
		}
	case RetryRejected, RedirectRejected, DiscardRejected:
		f := c.Rejected
		value = map[string]string{"topic": f.Topic, "type": f.Type, "source": f.Source, "subject": f.Subject, "event": id(f.EventID)}
	case RetryWaiting, DiscardWaiting:
		f := c.Waiting
		value = map[string]string{"saga": f.Saga, "key": f.Key}
		if len(f.IDs) == 1 {
			value["waiting"] = strconv.FormatInt(f.IDs[0], 10)
		}
		if len(f.Statuses) == 1 {
			value["status"] = string(f.Statuses[0])
		}
	case ApplyEvent:
		value = map[string]string{"saga": c.Apply.Event.Saga, "key": c.Apply.Event.Key}
	case Pause, Resume:
		p := c.Pause
		value = map[string]string{"kind": string(p.Kind), "consumer": p.Consumer, "topic": p.Topic, "type": p.Type, "subject": p.Subject}
	case FireTimeout, MoveTimeout, DisarmTimeout:
		value = map[string]string{"key": c.Timeout.Key, "name": c.Timeout.Name, "event": id(c.Timeout.EventID)}
	}
	for _, f := range fields {
		if value[f.Name] != "" {
			list = append(list, Field{f.Name, f.Title, value[f.Name]})
		}
	}
	return list
}

// All reports whether the action selects all of its service.
func (c *change) All() bool {
	return c.Filter.All || c.Rejected.All || c.Action.many() && len(c.Fields()) == 0
}

// Many reports whether the action changes all that its filter matches.
func (c *change) Many() bool { return c.Action.many() }

// Thing names what the action changes: one of them.
func (c *change) Thing() string { return kinds[c.Action].thing }

// Verb is what the button of the form says.
func (c *change) Verb() string {
	k := kinds[c.Action]
	switch c.Action {
	case Pause, Resume:
		return k.verb + " " + string(c.Pause.Kind)
	case FireTimeout, MoveTimeout, DisarmTimeout:
		return k.verb + " the timeout"
	case Edit:
		return k.verb + " " + plural(1, k.thing)
	}
	if c.Action.many() {
		return k.verb + " " + plural(min(c.Rows, int64(c.Cap)), k.thing)
	}
	return k.verb
}

// About says what the action does.
func (c *change) About() string { return kinds[c.Action].about }

// Dangerous reports whether the action can't be undone.
func (c *change) Dangerous() bool { return kinds[c.Action].final }

// Back is where the viewer came from, and goes after the action.
func (c *change) Back() (page string, pairs []any) {
	switch c.Action {
	case Resend:
		return "why", []any{"id", c.Filter.EventID}
	case AcceptGap:
		return "streams", []any{"service", c.Service.Name}
	case Edit:
		return "letter", []any{"service", c.Service.Name, "consumer", c.Filter.Consumer, "source", c.Filter.Source, "event", c.Filter.EventID}
	case RetryRejected, RedirectRejected, DiscardRejected:
		return "rejected", []any{"service", c.Service.Name}
	case ApplyEvent:
		return "saga", []any{"service", c.Service.Name, "name", c.Apply.Event.Saga, "key", c.Apply.Event.Key}
	case RetryWaiting, DiscardWaiting:
		if c.Waiting.Saga != "" && c.Waiting.Key != "" {
			return "saga", []any{"service", c.Service.Name, "name", c.Waiting.Saga, "key", c.Waiting.Key}
		}
		return "waiting", []any{"service", c.Service.Name}
	case Pause, Resume:
		return "consumers", nil
	case FireTimeout, MoveTimeout, DisarmTimeout:
		return "timeouts", []any{"service", c.Service.Name}
	}
	return "dead", []any{"service", c.Service.Name}
}

// form returns the page that asks for the action, with what it selects and other parameters.
func (c *change) form(more ...any) (page string, pairs []any) {
	pairs = append([]any{"service", c.Service.Name}, more...)
	for _, f := range c.Fields() {
		pairs = append(pairs, f.Name, f.Value)
	}
	return "act/" + string(c.Action), pairs
}

// Further is the address of the form that looks for what matches from Next on, for the template.
func (c *change) Further() []any {
	page, pairs := c.form("after", c.Next)
	return append([]any{page}, pairs...)
}

// Home is the address of Back, for the template.
func (c *change) Home() []any {
	page, pairs := c.Back()
	return append([]any{page}, pairs...)
}

// changeOf reads an action from the parameters of an address or a form.
func (q *request) changeOf(value func(string) string) (*change, error) {
	c := &change{
		Action: Action(q.r.PathValue("action")), Cap: q.config.MaxChange, Reason: value("reason"), At: value("at"), To: value("to"), Rows: 1,
		TryFirst: value("first") == "yes", PerSecond: value("rate"), After: operate.Cursor(value("after")),
	}
	c.Shown = int(min(max(numberOf(value("shown")), 0), int64(c.Cap)))
	if _, known := kinds[c.Action]; !known {
		return nil, refuse(http.StatusNotFound, "No such action", "The console has no action "+printable.Quote(string(c.Action), 100)+".")
	}
	var err error
	if c.Service, err = q.serviceOf(value("service")); err != nil {
		return nil, err
	}
	event := uuid.Nil
	if text := value("event"); text != "" {
		if event, err = uuid.Parse(text); err != nil {
			return nil, refuse(http.StatusBadRequest, "That is no id", "An action on one event needs its id.")
		}
	}
	switch c.Action {
	case Retry, Discard:
		c.Filter = operate.ParkedFilter{
			Consumer: value("consumer"), Source: value("source"), Topic: value("topic"), Type: value("type"), Subject: value("subject"), Error: value("error"), EventID: event,
		}
		f := &c.Filter
		f.All = event == uuid.Nil && f.Consumer+f.Source+f.Topic+f.Type+f.Subject+f.Error == ""
	case Resend:
		if c.Filter.EventID = event; event == uuid.Nil {
			return nil, refuse(http.StatusBadRequest, "Which event?", "The address needs the id of the event.")
		}
	case Edit, AcceptGap:
		if c.Filter.Consumer, c.Filter.EventID = value("consumer"), event; event == uuid.Nil || c.Filter.Consumer == "" {
			return nil, refuse(http.StatusBadRequest, "Which event?", "The address needs the consumer and the id of the event.")
		}
		if c.Action == Edit {
			c.Filter.Source = value("source")
			c.Edit = &editing{Version: value("version"), ContentType: value("content_type")}
		}
	case RetryRejected, RedirectRejected, DiscardRejected:
		f := operate.RejectedFilter{Source: value("source"), Topic: value("topic"), Type: value("type"), Subject: value("subject"), EventID: event}
		f.All = event == uuid.Nil && f.Source+f.Topic+f.Type+f.Subject == ""
		c.Rejected = f
	case RetryWaiting, DiscardWaiting:
		return c, c.waitingOf(value)
	case ApplyEvent:
		return c, c.applyOf(value)
	case Pause, Resume:
		c.Pause = operate.PauseTarget{
			Kind: operate.PauseKind(value("kind")), Consumer: value("consumer"), Topic: value("topic"), Type: value("type"), Subject: value("subject"),
		}
	case FireTimeout, MoveTimeout, DisarmTimeout:
		c.Timeout = operate.TimeoutRef{Key: value("key"), Name: value("name"), EventID: event}
	}
	return c, nil
}

// waitingOf reads which waiting events are selected: one by its number, whatever its status is, or those that failed or expired.
func (c *change) waitingOf(value func(string) string) error {
	f := &c.Waiting
	f.Saga, f.Key = value("saga"), value("key")
	stopped := []operate.WaitingStatus{operate.WaitingFailed, operate.WaitingExpired}
	known := stopped
	if text := value("waiting"); text != "" {
		id := numberOf(text)
		if id < 1 {
			return refuse(http.StatusBadRequest, "That is no number", "An action on one waiting event needs its number.")
		}
		f.IDs, known = []int64{id}, append(known, operate.WaitingForState, operate.WaitingForRetry)
	} else {
		f.Statuses = stopped
	}
	if status := operate.WaitingStatus(value("status")); status != "" {
		if !slices.Contains(known, status) {
			return refuse(http.StatusBadRequest, "No such status", "Waiting events are changed together if they failed or expired; others one by one.")
		}
		f.Statuses = []operate.WaitingStatus{status}
	}
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
	if err := q.allowed(c.Action, c.Service, c.Fields()); err != nil {
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
