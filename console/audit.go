package console

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// auditTimeout bounds the record of a denied attempt.
const auditTimeout = 5 * time.Second

// actor returns a context in which changes are made in the viewer's name.
func (q *request) actor(ctx context.Context, reason string) context.Context {
	return operate.WithActor(ctx, operate.Actor{Name: q.viewer.Name, Reason: reason})
}

// looks are the actions that change no rows, as the audit names refused attempts at them.
var looks = map[Action]operate.Action{Examine: operate.ActionExamine, Reconcile: operate.ActionReconcile}

// recordDenied records an attempt at what the viewer may not do, in each of the services that it was about. Only viewers with a name are
// recorded, so that nobody unknown fills the table.
func (q *request) recordDenied(a Action, services []Service, filter any) error {
	action, known := looks[a]
	if !known {
		action = kinds[a].audited
	}
	if q.viewer.Name == unnamed {
		return errNotRecorded
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.r.Context()), auditTimeout)
	defer cancel()
	errs := make([]error, len(services))
	var recording sync.WaitGroup
	for i, s := range services {
		recording.Go(func() {
			errs[i] = s.Operator.RecordDenied(q.actor(ctx, ""), action, filter, "the viewer of the console may not do this")
		})
	}
	recording.Wait()
	return errors.Join(errs...)
}

var errNotRecorded = errors.New("a viewer without a name")

// auditedActions returns the names that the audit has for the actions of the console.
func auditedActions() (list []operate.Action) {
	for _, k := range kinds {
		list = append(list, k.audited)
	}
	list = slices.AppendSeq(list, maps.Values(looks))
	slices.Sort(list)
	return list
}

// auditPage lists what operators have changed in a service.
func (q *request) auditPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	const limit = 50
	f := operate.AuditFilter{
		Actor: q.arg("actor"), Action: operate.Action(q.arg("action")), ID: q.arg("id"), Denied: q.arg("denied") == "yes", Before: numberOf(q.arg("before")), Limit: limit + 1,
	}
	if text := q.arg("operation"); text != "" {
		if f.Operation, err = uuid.Parse(text); err != nil {
			return refuse(http.StatusBadRequest, "That is no id", "The id of an operation is a UUID.")
		}
	}
	list, err := read(q.r.Context(), &q.reads, key("audit", s.Name, f), func(ctx context.Context) ([]operate.AuditEntry, error) { return s.Operator.Audit(ctx, f) })
	if err != nil {
		return badFilter(err)
	}
	next := int64(0)
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].ID
	}
	q.show(http.StatusOK, "audit", "Audit", struct {
		Service string
		Filter  operate.AuditFilter
		Actions []operate.Action // for the filter
		Entries []operate.AuditEntry
		Next    int64
		Now     time.Time
	}{s.Name, f, auditedActions(), list, next, time.Now()})
	return nil
}
