package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
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

// recordDenied records an attempt at what the viewer may not do. Only viewers with a name are recorded, so that nobody unknown fills
// the table.
func (q *request) recordDenied(a Action, s *Service, filter any) error {
	action, known := kinds[a]
	if !known || s == nil || q.viewer.Name == unnamed {
		return errNotRecorded
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.r.Context()), auditTimeout)
	defer cancel()
	return s.Operator.RecordDenied(q.actor(ctx, ""), action.audited, filter, "the viewer of the console may not do this")
}

var errNotRecorded = errors.New("not an action of the audit, or a viewer without a name")

// auditedActions returns the names that the audit has for the actions of the console.
func auditedActions() (list []operate.Action) {
	for _, k := range kinds {
		list = append(list, k.audited)
	}
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
