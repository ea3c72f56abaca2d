package console

import (
	"cmp"
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
)

// applying is an event that is applied to a saga.
type applying struct {
	Event operate.SagaEvent // as the form has it; its EventID is drawn once for a form, its Revision is what the viewer has seen
	Body  string            // as the form has it
	Wait  string            // as the form has it

	Saga    *operate.Saga // as it is now; nil: none runs
	Version int           // of the definition; 0: the console has none
	Takes   []taken       // what the definition takes; that of the saga's state comes first
}

// taken is an event that a saga's definition takes in a state.
type taken struct {
	Topic, Type, From, To string
	Now                   bool // the saga is in the state
}

// applyOf reads which event is applied to which saga.
func (c *change) applyOf(value func(string) string) error {
	a := &applying{Wait: cmp.Or(value("wait"), "1h")}
	a.Event = operate.SagaEvent{
		Saga: value("saga"), Key: value("key"), Topic: value("topic"), Type: value("type"), Subject: value("subject"),
		ContentType: value("content_type"), Revision: numberOf(value("revision")),
	}
	c.Apply = a
	if a.Event.Saga == "" || a.Event.Key == "" {
		return refuse(http.StatusBadRequest, "Which saga?", "The address needs the saga's name and key.")
	}
	a.Event.EventID, _ = uuid.Parse(value("id")) // zero: the form has none yet
	return nil
}

// problem returns what is wrong with the event, for viewers.
func (a *applying) problem() string {
	e := &a.Event
	wait, err := time.ParseDuration(a.Wait)
	switch {
	case a.Saga == nil:
		return "" // the page says it
	case e.Topic == "" || e.Type == "":
		return "Give the topic and the type of the event."
	case a.Version != 0 && !a.takes(e.Topic, e.Type):
		return "The definition of the saga takes no event of this topic and type in any state: it would be ignored. If a newer version of the service takes it, rocketflow saga apply doesn't ask the definition."
	case err != nil || wait <= 0:
		return "Give the time to wait as a duration, such as 30m or 24h."
	}
	e.Wait = wait
	return contentProblem(e.ContentType, a.Body, "rocketflow saga apply")
}

func (a *applying) takes(topic, eventType string) bool {
	return slices.ContainsFunc(a.Takes, func(t taken) bool { return t.Topic == topic && t.Type == eventType })
}

// contentProblem returns what is wrong with a body that a browser has sent, for viewers. command is the one that has no such limits.
func contentProblem(contentType, body, command string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	switch {
	case !utf8.ValidString(body):
		return "The body is not UTF-8 text."
	case len(body) > maxBody:
		return "The body has " + count(len(body)) + " bytes; a browser may send " + count(maxBody) + ". Use " + command + "."
	case err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) && !json.Valid([]byte(body)):
		return "The body is no JSON, and its content type says that it is."
	}
	return ""
}

// applyFrom reads the event from the form.
func (q *request) applyFrom(c *change) error {
	a := c.Apply
	if a.Event.EventID == uuid.Nil || a.Event.Revision < 1 || !q.r.PostForm.Has("body") {
		return refuse(http.StatusBadRequest, "The form is incomplete", "Begin at the page of the saga.")
	}
	a.Body = q.bodyOfForm()
	a.Event.Body = []byte(a.Body)
	a.Event.ContentType = cmp.Or(a.Event.ContentType, "application/json")
	return q.readSaga(q.r.Context(), c)
}

// bodyOfForm returns the body that a form has sent, in which a browser has made each line's end CR LF.
func (q *request) bodyOfForm() string {
	return strings.ReplaceAll(q.r.PostForm.Get("body"), "\r\n", "\n")
}

// readSaga reads the saga as it is now, and what its definition takes.
func (q *request) readSaga(ctx context.Context, c *change) error {
	a := c.Apply
	list, err := c.Service.Operator.Sagas(ctx, operate.SagaFilter{Name: a.Event.Saga, Key: a.Event.Key})
	if err != nil {
		return err
	}
	c.Rows, a.Saga = 0, nil
	if len(list) == 1 && !list[0].StartedAt.IsZero() && list[0].FinishedAt.IsZero() {
		c.Rows, a.Saga = 1, &list[0]
	}
	if a.Saga == nil {
		return nil
	}
	if d := definitionOf(c.Service, a.Event.Saga); d != nil {
		a.Version, a.Takes = d.Version, takenBy(d, a.Saga.State)
	}
	if a.Event.EventID == uuid.Nil {
		if a.Event.EventID, err = uuid.NewV7(); err != nil {
			return err
		}
	}
	if a.Event.Revision == 0 {
		a.Event.Revision = a.Saga.Revision
	}
	a.Event.Subject = cmp.Or(a.Event.Subject, a.Event.Key)
	a.Event.ContentType = cmp.Or(a.Event.ContentType, "application/json")
	return nil
}

// definitionOf returns the definition of a saga with the highest version that the service has; nil: none.
func definitionOf(s *Service, name string) (found *saga.Graph) {
	for i, d := range s.Sagas {
		if d.Name == name && (found == nil || d.Version > found.Version) {
			found = &s.Sagas[i]
		}
	}
	return found
}

// takenBy returns what a definition takes in its states, that of a state first.
func takenBy(d *saga.Graph, state string) (list []taken) {
	for _, now := range []bool{true, false} {
		for _, t := range d.Transitions {
			if t.Event != "" && t.From != "" && (t.From == state) == now {
				list = append(list, taken{t.Topic, t.Event, t.From, t.To, now})
			}
		}
	}
	return list
}
