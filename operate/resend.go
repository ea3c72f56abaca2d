package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

//go:embed resend.sql
var resendSQL string

const (
	resendPage  = 50               // rows that are read at once
	auditTime   = 10 * time.Second // for the entry of the audit after the last event
	resendBytes = 1 << 20          // a page ends with the event that reaches so many bytes of bodies
)

// ResendFilter selects events of the outbox. An event is selected if it matches all fields that are set.
type ResendFilter struct {
	IDs     []uuid.UUID `json:"ids,omitempty"` // of the events
	Source  string      `json:"source,omitempty"`
	Topic   string      `json:"topic,omitempty"`
	Type    string      `json:"type,omitempty"`
	Subject string      `json:"subject,omitempty"`
	Since   time.Time   `json:"since,omitzero"` // recorded at Since or later
	Until   time.Time   `json:"until,omitzero"` // recorded before Until
	// All selects every event that the outbox keeps. Resend requires either All or one of the fields above.
	All bool `json:"all,omitempty"`
	// Limit is the maximum number of events; the oldest are selected first.
	// Defaults to no limit.
	Limit int `json:"limit,omitempty"`
}

func (f ResendFilter) check() error {
	selects := len(f.IDs) > 0 || f.Source+f.Topic+f.Type+f.Subject != "" || !f.Since.IsZero() || !f.Until.IsZero()
	if err := checkChange("ResendFilter", selects, f.All, f.Limit); err != nil {
		return err
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return valid.Fieldf("operate.ResendFilter.Until", "%v: want a time after Since", f.Until)
	}
	return nil
}

// Resend sends events that the outbox keeps to Config.Broker again, unchanged and the oldest first, and returns how many it
// sent; with an error, how many before that. Use it when a broker has lost messages that it had acknowledged. Consumers
// request missing events of a stream by themselves, but can't notice that the last event of a stream, or one that is not
// ordered, is missing. A consumer that has handled an event recognizes the second copy as a duplicate; if its record of that
// has expired (handlers.Config.InboxRetention), the copy becomes a dead letter.
//
// The audit has two entries of it, as sending isn't part of a transaction: one is written before the first event is sent, and one
// after the last, with the number.
func (o *Operator) Resend(ctx context.Context, f ResendFilter) (sent int, err error) {
	if o.config.Broker == nil {
		return 0, valid.Field("operate.Config.Broker", "missing: Resend sends to it")
	}
	if err := f.check(); err != nil {
		return 0, err
	}
	database, _, err := installation.Read(ctx, o.config.Pool, o.config.Schema)
	if err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	selected := f
	selected.IDs = selected.IDs[:min(len(selected.IDs), MaxAuditIDs)]
	op, err := o.operation(ctx, ActionResend, selected)
	if err != nil {
		return 0, err
	}
	note := func(ctx context.Context, c changed) error {
		return op.inTx(ctx, func(pgx.Tx) (changed, error) { return c, nil })
	}
	if err := note(ctx, changed{record: true, after: map[string]any{"state": "begun"}}); err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	var done changed
	defer func() {
		state := map[string]any{"state": "ended"}
		if err != nil {
			state["error"] = printable.Text(err.Error(), maxReason)
		}
		done.after, done.record = state, true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
		defer cancel()
		if e := note(ctx, done); e != nil {
			err = errors.Join(err, fmt.Errorf("resend: %w", e))
		}
	}()
	limiter := rate.NewLimiter(rate.Limit(o.config.ResendRate), max(1, int(o.config.ResendRate/10)))
	for after := uuid.Nil; ; {
		limit := resendPage
		if f.Limit > 0 {
			limit = min(limit, f.Limit-sent)
		}
		page, err := o.resendPage(ctx, f, database, after, limit)
		if err != nil {
			return sent, fmt.Errorf("resend: read events: %w", err)
		}
		size := 0
		for _, e := range page {
			if err := limiter.Wait(ctx); err != nil {
				return sent, fmt.Errorf("resend: %w", err)
			}
			if _, err := o.config.Broker.Send(ctx, wire.MessageOf(e)); err != nil {
				return sent, fmt.Errorf("resend event %s: %w", e.ID, err)
			}
			sent++
			done.add(e.ID.String())
			size += len(e.Body)
			after = e.ID
		}
		if len(page) < limit && size < resendBytes || sent == f.Limit {
			return sent, nil
		}
	}
}

// resendPage reads the next events of a database, after an id.
func (o *Operator) resendPage(ctx context.Context, f ResendFilter, database string, after uuid.UUID, limit int) ([]rocketflow.Event, error) {
	query, args := "Resend", []any{after.String(), f.Source, f.Topic, f.Type, f.Subject, orNull(f.Since), orNull(f.Until), limit, resendBytes}
	if len(f.IDs) > 0 {
		ids := make([]string, len(f.IDs))
		for i, id := range f.IDs {
			ids[i] = id.String()
		}
		query, args = "ResendByID", append(args, ids)
	}
	rows, err := o.db().Query(ctx, o.sql.Get(query), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (rocketflow.Event, error) {
		e := rocketflow.Event{Database: database}
		var headers []byte
		err := row.Scan(&e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.ContentType, &headers, &e.Body)
		if err == nil {
			err = stored.SetHeaders(&e, headers)
		}
		return e, err
	})
}
