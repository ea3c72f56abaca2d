package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// deadGroup is a group of dead letters of a service.
type deadGroup struct {
	Service string
	operate.DeadLetterGroup
}

// deadPage groups the dead letters of all services and, with a service in the address, lists those that match.
func (q *request) deadPage() error {
	view := struct {
		Groups  []deadGroup
		Unread  []unreadService
		Service string
		Filter  operate.ParkedPageFilter
		Page    *operate.ParkedPage // nil: no service is chosen
		Most    int64
		Now     time.Time
	}{Most: operate.MaxGrouped, Now: time.Now()}
	reads := []func() error{func() error {
		groups, unread := ofServices(q, "groups", func(ctx context.Context, o *operate.Operator) ([]operate.DeadLetterGroup, error) {
			return o.DeadLetterGroups(ctx)
		})
		view.Unread = unread
		for _, s := range q.config.Services {
			for _, g := range groups[s.Name] {
				view.Groups = append(view.Groups, deadGroup{s.Name, g})
			}
		}
		return nil
	}}
	if q.arg("service") != "" {
		s, err := q.service()
		if err != nil {
			return err
		}
		view.Service = s.Name
		view.Filter = operate.ParkedPageFilter{
			Dead: true, Consumer: q.arg("consumer"), Source: q.arg("source"), Topic: q.arg("topic"), Type: q.arg("type"), Subject: q.arg("subject"),
			Error: q.arg("error"), After: operate.Cursor(q.arg("after")),
		}
		reads = append(reads, func() (err error) {
			view.Page, err = read(q.r.Context(), &q.reads, key("dead", s.Name, view.Filter), func(ctx context.Context) (*operate.ParkedPage, error) {
				return s.Operator.ParkedPage(ctx, view.Filter)
			})
			return err
		})
	}
	if err := atOnce(reads...); err != nil {
		return badFilter(err)
	}
	q.show(http.StatusOK, "dead", "Dead letters", view)
	return nil
}

// letterPage shows one dead letter or parked event.
func (q *request) letterPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	id, err := uuid.Parse(q.arg("event"))
	if err != nil {
		return refuse(http.StatusBadRequest, "That is no id", "The address needs the id of an event.")
	}
	f := operate.ParkedFilter{Consumer: q.arg("consumer"), Source: q.arg("source"), EventID: id, Limit: 1}
	list, err := s.Operator.DeadLetters(q.r.Context(), f)
	if err == nil && len(list) == 0 {
		list, err = s.Operator.ParkedEvents(q.r.Context(), f)
	}
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return refuse(http.StatusNotFound, "It is not parked", "No consumer has this event parked any more: it was handled, retried or discarded.")
	}
	letter := list[0]
	shown, err := q.contentOf(s.Name, letter.Event)
	if err != nil {
		return err
	}
	extensions, err := q.extensions(s.Name, letter.Event)
	if err != nil {
		return err
	}
	letter.Event.Body = nil
	var delivered *content
	if letter.Edited && q.viewer.Bodies {
		if delivered, err = q.delivered(q.r.Context(), s, letter); err != nil {
			return err
		}
	}
	q.show(http.StatusOK, "letter", "Dead letter", struct {
		Service    string
		Letter     operate.ParkedEvent
		Extensions []header
		Content    *content
		Delivered  *content // before somebody edited it; nil: nobody did, or it is not kept any more
		Dead       bool
		Now        time.Time
	}{s.Name, letter, extensions, shown, delivered, letter.Reason == operate.StateDead, time.Now()})
	return nil
}

// streamsPage lists the parked streams of a service.
func (q *request) streamsPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.ParkedStreamFilter{Consumer: q.arg("consumer"), After: operate.Cursor(q.arg("after"))}
	loose := operate.ParkedPageFilter{
		Consumer: f.Consumer, Topic: q.arg("topic"), Type: q.arg("type"), Error: q.arg("error"), After: operate.Cursor(q.arg("events_after")),
	}
	var page *operate.ParkedStreamPage
	var groups []operate.ParkedGroup
	var events *operate.ParkedPage
	ctx := q.r.Context()
	if err := atOnce(func() (err error) {
		page, err = read(ctx, &q.reads, key("streams", s.Name, f), func(ctx context.Context) (*operate.ParkedStreamPage, error) { return s.Operator.ParkedStreams(ctx, f) })
		return err
	}, func() (err error) {
		groups, err = read(ctx, &q.reads, key("parked groups", s.Name), func(ctx context.Context) ([]operate.ParkedGroup, error) { return s.Operator.ParkedGroups(ctx) })
		return err
	}, func() (err error) {
		events, err = read(ctx, &q.reads, key("parked", s.Name, loose), func(ctx context.Context) (*operate.ParkedPage, error) { return s.Operator.ParkedPage(ctx, loose) })
		return err
	}); err != nil {
		return badFilter(err)
	}
	if f.Consumer != "" {
		groups = slices.DeleteFunc(slices.Clone(groups), func(g operate.ParkedGroup) bool { return g.Consumer != f.Consumer }) // others share the list
	}
	q.show(http.StatusOK, "streams", "Streams", struct {
		Service string
		Filter  operate.ParkedStreamFilter
		Page    *operate.ParkedStreamPage
		Groups  []operate.ParkedGroup
		Loose   operate.ParkedPageFilter
		Events  *operate.ParkedPage
		Most    int64
		Grouped int
		Now     time.Time
	}{s.Name, f, page, groups, loose, events, operate.MaxBehind, operate.MaxGrouped, time.Now()})
	return nil
}
