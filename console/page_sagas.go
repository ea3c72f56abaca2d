package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// sagasPage counts the sagas of a service by state and lists those that match.
func (q *request) sagasPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.SagaPageFilter{Name: q.arg("name"), State: q.arg("state"), After: operate.Cursor(q.arg("after"))}
	finished := q.arg("finished")
	switch finished {
	case "yes", "no":
		yes := finished == "yes"
		f.Finished = &yes
	}
	page, err := read(q.r.Context(), &q.reads, key("sagas", s.Name, f.Name, f.State, finished, f.After), func(ctx context.Context) (*operate.SagaPage, error) {
		return s.Operator.SagaPage(ctx, f)
	})
	if err != nil {
		return badFilter(err)
	}
	view := struct {
		Service  string
		Filter   operate.SagaPageFilter
		Finished string
		Page     *operate.SagaPage
		Overview *operate.Overview
		Graph    *sagaGraph // of the saga that the filter names, or the only one; nil: none
		Most     int64
		Now      time.Time
	}{s.Name, f, finished, page, nil, nil, operate.MaxOverviewCount, time.Now()}
	for _, v := range q.look() {
		if v.name == s.Name {
			view.Overview = v.overview
		}
	}
	name := f.Name
	if known := sagaNames(s, view.Overview); name == "" && len(known) == 1 {
		name = known[0]
	}
	if name != "" {
		if view.Graph, err = q.graphOf(q.r.Context(), s, name, ""); err != nil {
			return err
		}
	}
	q.show(http.StatusOK, "sagas", "Sagas", view)
	return nil
}

// sagaNames returns the names of the sagas that are known of a service.
func sagaNames(s *Service, v *operate.Overview) (names []string) {
	for _, d := range s.Sagas {
		names = append(names, d.Name)
	}
	if v != nil {
		for _, c := range slices.Concat(v.Sagas, v.SagasFinished) {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (q *request) sagas(s *Service, f operate.SagaFilter) ([]operate.Saga, error) {
	return read(q.r.Context(), &q.reads, key("saga", s.Name, f), func(ctx context.Context) ([]operate.Saga, error) { return s.Operator.Sagas(ctx, f) })
}

// sagaPage shows one saga.
func (q *request) sagaPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.SagaFilter{Name: q.arg("name"), Key: q.arg("key")}
	list, err := q.sagas(s, f)
	switch {
	case err != nil:
		return badFilter(err)
	case len(list) == 0:
		return refuse(http.StatusNotFound, "No such saga", "The service has no saga with this name and key: it has not begun, or the retention has removed it.")
	}
	v := list[0]
	shown, err := q.shown(Content{Viewer: q.viewer, Service: s.Name, Saga: v.Name, Key: v.Key, Body: v.Data})
	if err != nil {
		return err
	}
	out, err := q.eventsOut(s, v)
	if err != nil {
		return err
	}
	var graph *sagaGraph
	if !v.StartedAt.IsZero() {
		if graph, err = q.graphOf(q.r.Context(), s, v.Name, v.State); err != nil {
			return err
		}
	}
	q.show(http.StatusOK, "saga", "Saga "+v.Name+" "+v.Key, struct {
		Service string
		Saga    operate.Saga
		Out     []operate.EventOut
		MostOut int
		Data    *body
		Graph   *sagaGraph
		Now     time.Time
	}{s.Name, v, out, operate.MaxEventsOut, shown, graph, time.Now()})
	return nil
}

// eventsOut reads what was published while the events of a saga's history were handled.
func (q *request) eventsOut(s *Service, v operate.Saga) ([]operate.EventOut, error) {
	var causes []uuid.UUID
	for _, t := range v.Transitions {
		if t.CauseID != uuid.Nil {
			causes = append(causes, t.CauseID)
		}
	}
	if len(causes) == 0 {
		return nil, nil
	}
	return read(q.r.Context(), &q.reads, key("out", s.Name, v.Name, v.Key, v.Revision), func(ctx context.Context) ([]operate.EventOut, error) {
		return s.Operator.EventsOut(ctx, causes)
	})
}

// timeoutsPage lists the armed timeouts of a service; of one key also what became of those that have ended.
func (q *request) timeoutsPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	view := struct {
		Service string
		Key     string
		Filter  operate.TimeoutPageFilter
		Page    *operate.TimeoutPage
		Ended   []operate.EndedTimeout // of Key
		Now     time.Time
	}{Service: s.Name, Key: q.arg("key"), Filter: operate.TimeoutPageFilter{Late: q.arg("late") == "yes", After: operate.Cursor(q.arg("after"))}, Now: time.Now()}
	if view.Key != "" {
		list, err := s.Operator.Timeouts(q.r.Context(), operate.TimeoutFilter{Key: view.Key, Limit: 100})
		if err != nil {
			return badFilter(err)
		}
		view.Page = &operate.TimeoutPage{Timeouts: list}
		if view.Ended, err = s.Operator.EndedTimeouts(q.r.Context(), operate.TimeoutFilter{Key: view.Key, Limit: 100}); err != nil {
			return badFilter(err)
		}
	} else {
		view.Page, err = read(q.r.Context(), &q.reads, key("timeouts", s.Name, view.Filter), func(ctx context.Context) (*operate.TimeoutPage, error) {
			return s.Operator.TimeoutPage(ctx, view.Filter)
		})
		if err != nil {
			return badFilter(err)
		}
	}
	q.show(http.StatusOK, "timeouts", "Timeouts", view)
	return nil
}
