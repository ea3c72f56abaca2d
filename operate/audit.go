package operate

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed audit.sql
var auditSQL string

// Bounds of an AuditEntry.
const (
	// MaxAuditIDs is how many ids an AuditEntry has at most. Changed counts all, and AuditFilter.ID finds an entry also by the others of
	// its transaction, up to 4,000.
	MaxAuditIDs = 100

	maxNames      = 4000     // of what an entry is found by
	maxActor      = 200      // bytes
	maxAuditState = 16 << 10 // bytes of Filter, Before and After each
	maxAuditError = 200      // bytes of an event's last error
)

// MaxDenied is how many refused attempts of an actor RecordDenied records within an hour.
const MaxDenied = 60

// ErrTooManyDenied means that MaxDenied refused attempts of the actor within an hour are in the audit, and this one is not.
var ErrTooManyDenied = fmt.Errorf("%d refused attempts of this actor within an hour are in the audit, and more are not recorded", MaxDenied)

// Actor is who makes a change, and why. Both end up in the audit.
type Actor struct {
	Name   string // such as the name of a person; cut to 200 bytes. Empty: Config.Actor
	Reason string // cut to 500 bytes
}

type actorKey struct{}

// WithActor returns a context with which changes are made in the name of an actor.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// actor returns who makes changes with ctx.
func (o *Operator) actor(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if a.Name == "" {
		a.Name = o.config.Actor
	}
	return Actor{printable.Line(a.Name, maxActor), printable.Text(a.Reason, maxReason)}
}

// Action is a kind of change.
type Action string

// The values of Action.
const (
	ActionRetryDeadLetters   Action = "dead_letters.retry"
	ActionDiscardDeadLetters Action = "dead_letters.discard"
	ActionEditDeadLetter     Action = "dead_letters.edit"
	ActionAcceptGap          Action = "gap.accept"
	ActionResetPosition      Action = "position.reset"
	ActionRetireHandler      Action = "handler.retire"
	ActionRetryRejected      Action = "rejected.retry"
	ActionRedirectRejected   Action = "rejected.redirect"
	ActionDiscardRejected    Action = "rejected.discard"
	ActionResend             Action = "events.resend"
	ActionRetryWaiting       Action = "waiting.retry"
	ActionDiscardWaiting     Action = "waiting.discard"
	ActionApplyToSaga        Action = "saga.apply"
	ActionPause              Action = "pause"
	ActionResume             Action = "resume"
	ActionFireTimeout        Action = "timeout.fire"
	ActionMoveTimeout        Action = "timeout.move"
	ActionDisarmTimeout      Action = "timeout.disarm"

	// These change nothing: only refused attempts are recorded, by package console.
	ActionExamine   Action = "doctor.examine"
	ActionReconcile Action = "reconcile"
)

// AuditEntry is one change: what a transaction of a method of Operator has changed, who made it, and why. It has no bodies of events.
type AuditEntry struct {
	ID        int64     `json:"id"`               // a later entry has a higher one
	Operation uuid.UUID `json:"operation"`        // of all entries of one call
	At        time.Time `json:"at"`               // by Postgres' clock
	Actor     string    `json:"actor"`            // who made the change: Actor.Name or Config.Actor
	Role      string    `json:"role"`             // the role of Postgres, by which the change was made
	Action    Action    `json:"action"`           // what was done
	Denied    bool      `json:"denied,omitempty"` // an attempt that was refused, and changed nothing
	Reason    string    `json:"reason,omitempty"` // why: Actor.Reason
	// Filter is what was selected: the filter or the arguments of the method.
	Filter  json.RawMessage `json:"filter"`
	Changed int64           `json:"changed"` // how many things were changed
	IDs     []string        `json:"ids"`     // of what was changed, at most MaxAuditIDs
	// Before and After are the state of what was changed, as far as the action changes it. Null: none.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// AuditFilter selects entries of the audit. An entry is selected if it matches all fields that are set.
type AuditFilter struct {
	Actor  string
	Action Action
	// ID is that of something that was changed, as in AuditEntry.IDs, or of what belongs to it: the key of a timeout and the event that it
	// fires with, the event that waits for a saga, and the key of the saga.
	ID        string
	Operation uuid.UUID // the entries of one call
	Since     time.Time // made at Since or later
	Until     time.Time // made before Until
	Denied    bool      // only attempts that were refused
	Before    int64     // those with a lower ID: the next page of a list
	// Limit is the maximum number of entries.
	// Defaults to DefaultLimit.
	Limit int
}

// Audit returns what operators have changed, the latest first. Entries are kept for outbox.Config.AuditRetention.
func (o *Operator) Audit(ctx context.Context, f AuditFilter) (list []AuditEntry, err error) {
	if err := checkLimit("AuditFilter", f.Limit); err != nil {
		return nil, err
	}
	var operation *string
	if f.Operation != uuid.Nil {
		text := f.Operation.String()
		operation = &text
	}
	err = o.read(ctx, func(s snapshot) error {
		query := "Audit"
		if f.ID != "" {
			query = "AuditOf"
		}
		list, err = collect(ctx, s, query, func(row pgx.CollectableRow, e *AuditEntry) error { return e.scan(row) },
			f.Actor, string(f.Action), f.ID, operation, orNull(f.Since), orNull(f.Until), f.Before, f.Denied, listLimit(f.Limit))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	return list, nil
}

func (e *AuditEntry) scan(row pgx.CollectableRow) error {
	var filter string
	var before, after *string
	err := row.Scan(&e.ID, &e.Operation, &e.At, &e.Actor, &e.Role, &e.Action, &e.Denied, &e.Reason, &filter, &e.Changed, &e.IDs, &before, &after)
	e.Filter, e.Before, e.After = json.RawMessage(filter), rawJSON(before), rawJSON(after)
	return err
}

// rawJSON returns JSON, or nil for null.
func rawJSON(text *string) json.RawMessage {
	if text == nil {
		return nil
	}
	return json.RawMessage(*text)
}

// RecordDenied writes to the audit that the actor of ctx attempted an action and was refused, and why. filter is what the actor had
// selected, as a filter of this package or any other value that marshals to JSON without bodies of events. Call it only for actors
// whose identity is known: what they can write is bounded for each actor, not for all. The same attempt within a minute is recorded once.
// The error matches ErrTooManyDenied if MaxDenied attempts of the actor within an hour are recorded; concurrent calls may exceed that by
// their number.
func (o *Operator) RecordDenied(ctx context.Context, action Action, filter any, why string) error {
	if action == "" {
		return valid.Field("action", "missing")
	}
	op, err := o.operation(ctx, action, filter)
	if err != nil {
		return err
	}
	op.denied = true
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		var recorded int
		var same bool
		if err := tx.QueryRow(ctx, o.sql.Get("DeniedBefore"), op.actor.Name, string(action), op.filter, int64(MaxDenied)).Scan(&recorded, &same); err != nil {
			return c, err
		}
		switch {
		case same:
			return c, nil
		case recorded >= MaxDenied:
			return c, ErrTooManyDenied
		}
		return changed{record: true, after: map[string]string{"denied": printable.Text(why, maxReason)}}, nil
	})
	if err != nil {
		return fmt.Errorf("record a denied attempt: %w", err)
	}
	return nil
}

// operation is one call of a method that changes something.
type operation struct {
	*Operator
	id     uuid.UUID
	actor  Actor
	action Action
	filter string // JSON
	denied bool
}

// changed is what one transaction of an operation has changed.
type changed struct {
	n      int
	ids    []string
	names  []string // what it is found by; nil: ids
	before any      // that marshals to JSON; nil: none
	after  any
	record bool // although n is 0
}

// add counts a thing that was changed. also are what it is found by beside its id.
func (c *changed) add(id string, also ...string) {
	c.n++
	if len(c.names)+len(also) < maxNames {
		c.names = append(append(c.names, id), also...)
	}
	if len(c.ids) < MaxAuditIDs {
		c.ids = append(c.ids, id)
	}
}

// operation begins the audit of a change.
func (o *Operator) operation(ctx context.Context, action Action, filter any) (*operation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("draw an id: %w", err)
	}
	text, err := auditJSON(filter)
	if err != nil {
		return nil, err
	}
	if text == nil {
		empty := "{}"
		text = &empty
	}
	return &operation{Operator: o, id: id, actor: o.actor(ctx), action: action, filter: *text}, nil
}

// inTx calls fn in a transaction that changes something, and records in the same transaction what fn says that it has changed. If
// that is nothing, nothing is recorded.
func (op *operation) inTx(ctx context.Context, fn func(pgx.Tx) (changed, error)) error {
	return op.Operator.inTx(ctx, func(tx pgx.Tx) error {
		c, err := fn(tx)
		if err != nil || c.n == 0 && !c.record {
			return err
		}
		return op.record(ctx, tx, c)
	})
}

// record writes an entry of the audit.
func (op *operation) record(ctx context.Context, tx pgx.Tx, c changed) error {
	e := AuditEntry{
		Operation: op.id, Action: op.action, Denied: op.denied, Reason: op.actor.Reason, Filter: json.RawMessage(op.filter),
		Changed: int64(c.n), IDs: append([]string{}, c.ids[:min(len(c.ids), MaxAuditIDs)]...),
	}
	names := c.names
	if names == nil {
		names = append([]string{}, c.ids...)
	}
	before, err := auditJSON(c.before)
	if err != nil {
		return err
	}
	after, err := auditJSON(c.after)
	if err != nil {
		return err
	}
	e.Before, e.After = rawJSON(before), rawJSON(after)
	err = tx.QueryRow(ctx, op.sql.Get("RecordAudit"), op.id.String(), op.actor.Name, string(op.action), op.denied, op.actor.Reason, op.filter, e.Changed,
		e.IDs, before, after, names).Scan(&e.ID, &e.At, &e.Actor, &e.Role)
	if err != nil {
		return fmt.Errorf("record the change in the audit: %w", err)
	}
	if op.config.OnAudit == nil {
		return nil
	}
	if err := op.config.OnAudit(ctx, tx, e); err != nil {
		return fmt.Errorf("operate.Config.OnAudit: %w", err)
	}
	return nil
}

// auditJSON returns a value as bounded JSON; nil for nil.
func auditJSON(v any) (*string, error) {
	if v == nil {
		return nil, nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode for the audit: %w", err)
	}
	if len(data) > maxAuditState {
		data = fmt.Appendf(nil, `{"omitted_bytes":%d}`, len(data))
	}
	text := string(data)
	return &text, nil
}

// parkedState is the state of a parked event in the audit.
type parkedState struct {
	Consumer  string        `json:"consumer"`
	EventID   string        `json:"event_id"`
	Type      string        `json:"type,omitempty"`
	Subject   string        `json:"subject,omitempty"`
	Reason    HandlingState `json:"reason"`
	Attempts  int           `json:"attempts"`
	LastError string        `json:"last_error,omitempty"`
}

// maxStates is how many states of parked events an entry has.
const maxStates = 20
