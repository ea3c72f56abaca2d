package console

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

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

func numberOf(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // 0 for what is no number
	return n
}
