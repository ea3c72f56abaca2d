package console

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

// timeOf reads a time of a form: as a browser's field sends it, or with a zone; UTC by default.
func timeOf(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, refuse(http.StatusBadRequest, "That is no time", "Give a time as 2006-01-02 15:04, in UTC.")
}

func (q *request) eventsPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.EventPageFilter{Topic: q.arg("topic"), Type: q.arg("type"), Subject: q.arg("subject"), After: operate.Cursor(q.arg("after"))}
	if f.Since, err = timeOf(q.arg("since")); err != nil {
		return err
	}
	if f.Until, err = timeOf(q.arg("until")); err != nil {
		return err
	}
	page, err := read(q.r.Context(), &q.reads, key("events", s.Name, f), func(ctx context.Context) (*operate.EventPage, error) {
		return s.Operator.EventPage(ctx, f)
	})
	if err != nil {
		return badFilter(err)
	}
	q.show(http.StatusOK, "events", "Events", struct {
		Service string
		Filter  operate.EventPageFilter
		Since   string
		Until   string
		Page    *operate.EventPage
	}{s.Name, f, q.arg("since"), q.arg("until"), page})
	return nil
}

// badFilter makes the error of a filter one of the request.
func badFilter(err error) error {
	var field *rocketflow.FieldError
	if errors.As(err, &field) {
		return refuse(http.StatusBadRequest, "The address is wrong", field.Error())
	}
	return err
}

// recorded is what one schema has about an event.
type recorded struct {
	Service    string
	Status     *operate.EventStatus
	Extensions []header
	Body       *body // nil: the viewer may not see it, or the schema doesn't have it
}

// whyPage is the page of an event, or of everything with a key.
func (q *request) whyPage() error {
	id := q.arg("id")
	if id == "" {
		return refuse(http.StatusBadRequest, "What should be explained?", "Give the id of an event or a message, a subject, or the key of a saga or of a timeout.")
	}
	x, err := read(q.r.Context(), &q.reads, key("why", id), func(ctx context.Context) (*operate.Explanation, error) { return q.system.Why(ctx, id) })
	if err != nil {
		return badFilter(err)
	}
	view := struct {
		*operate.Explanation
		Event    string // the id of the event; empty: it is no event
		Recorded []recorded
		Resend   string      // the service that can send it again
		Sagas    []sagaOfKey // of the key
		Away     []operate.UnreadSchema
	}{Explanation: x, Away: x.Unread[len(q.config.Unread):]} // all pages tell the others
	event, err := uuid.Parse(id)
	switch {
	case x.Kind == operate.ExplainsEvent && err == nil:
		view.Event = event.String()
		if view.Recorded, view.Resend, err = q.recorded(event); err != nil {
			return err
		}
	case x.Kind == operate.ExplainsKey:
		view.Sagas = q.sagasOfKey(id)
	}
	status := http.StatusOK
	if x.Kind == operate.ExplainsNothing {
		status = http.StatusNotFound
	}
	q.show(status, "why", "Why "+id, view)
	return nil
}

// recorded reads what the schemas have about an event. Those that can't be read are among the explanation's.
func (q *request) recorded(id uuid.UUID) (list []recorded, resend string, err error) {
	found, _ := ofServices(q, key("event", id), func(ctx context.Context, o *operate.Operator) (*operate.EventStatus, error) {
		status, err := o.EventStatus(ctx, id)
		if errors.Is(err, operate.ErrUnknownEvent) {
			return nil, nil
		}
		return status, err
	})
	for _, s := range q.config.Services {
		status := found[s.Name]
		if status == nil {
			continue
		}
		if status.InOutbox {
			resend = s.Name
		}
		r := recorded{Service: s.Name, Status: status}
		if status.Type != "" {
			if r.Body, err = q.body(s.Name, eventOf(status), status.Body); err != nil {
				return nil, "", err
			}
			if r.Extensions, err = q.extensions(s.Name, eventOf(status)); err != nil {
				return nil, "", err
			}
		}
		list = append(list, r)
	}
	return list, resend, nil
}

func eventOf(e *operate.EventStatus) rocketflow.Event {
	return rocketflow.Event{
		ID: e.ID, Source: e.Source, Topic: e.Topic, Type: e.Type, Subject: e.Subject, Sequence: e.Sequence, Previous: e.Previous,
		Time: e.RecordedAt, ContentType: e.ContentType, DataSchema: e.DataSchema, Extensions: e.Extensions,
	}
}

// body returns what the viewer may see of an event's body; nil: nothing.
func (q *request) body(service string, e rocketflow.Event, data []byte) (*body, error) {
	return q.shown(Content{Viewer: q.viewer, Service: service, Event: withoutBody(e), Body: data})
}

func withoutBody(e rocketflow.Event) rocketflow.Event {
	e.Body = nil
	return e
}

// shown returns what the viewer may see; nil: nothing.
func (q *request) shown(c Content) (*body, error) {
	if !q.viewer.Bodies {
		return nil, nil
	}
	data, err := q.redacted(c)
	if err != nil {
		return nil, err
	}
	b := newBody(data)
	return &b, nil
}

// content is the content of an event as it is shown.
type content struct {
	ContentType string
	Headers     []header
	Body        *body // nil: the viewer may not see it, nor the headers
}

// header is a header of an event, or one of its extension attributes, as it is shown.
type header struct {
	Name, Value string
	Hidden      bool // the viewer may not see the value
}

// contentOf returns what the viewer may see of an event's content.
func (q *request) contentOf(service string, e rocketflow.Event) (*content, error) {
	shown, err := q.body(service, e, e.Body)
	if err != nil {
		return nil, err
	}
	c := &content{ContentType: e.ContentType, Body: shown}
	c.Headers, _, err = q.headers(service, e)
	return c, err
}

// headers returns what the viewer may see of an event's headers, by name, and whether that is all.
func (q *request) headers(service string, e rocketflow.Event) (list []header, all bool, err error) {
	if !q.viewer.Bodies {
		return nil, len(e.Headers) == 0, nil
	}
	all = true
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		value, err := q.redacted(Content{Viewer: q.viewer, Service: service, Event: withoutBody(e), Header: name, Body: []byte(e.Headers[name])})
		if err != nil {
			return nil, false, err
		}
		all = all && string(value) == e.Headers[name]
		list = append(list, header{Name: name, Value: string(value)})
	}
	return list, all, nil
}

// extensions returns what the viewer may see of the extension attributes of an event, by name: to a viewer that may not see headers the
// names alone.
func (q *request) extensions(service string, e rocketflow.Event) (list []header, err error) {
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		h := header{Name: name, Hidden: !q.viewer.Bodies}
		if !h.Hidden {
			value, err := q.redacted(Content{Viewer: q.viewer, Service: service, Event: withoutBody(e), Header: name, Body: []byte(e.Extensions[name])})
			if err != nil {
				return nil, err
			}
			h.Value = string(value)
		}
		list = append(list, h)
	}
	return list, nil
}

// sagaOfKey is a saga with a key.
type sagaOfKey struct{ Service, Name, Key, State string }

// sagasOfKey reads the sagas with a key. Services that can't be read are among the explanation's unread schemas.
func (q *request) sagasOfKey(id string) (list []sagaOfKey) {
	found, _ := ofServices(q, key("sagas", id), func(ctx context.Context, o *operate.Operator) ([]operate.Saga, error) {
		return o.Sagas(ctx, operate.SagaFilter{Key: id})
	})
	for _, s := range q.config.Services {
		for _, v := range found[s.Name] {
			list = append(list, sagaOfKey{s.Name, v.Name, v.Key, v.State})
		}
	}
	return list
}
