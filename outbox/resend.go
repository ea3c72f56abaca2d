package outbox

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// ResendConfig selects events to be sent again. All that is set must match.
type ResendConfig struct {
	Pool   *pgxpool.Pool // required
	Schema string        // of rocketflow's tables; default rocketflow.DefaultSchema
	Broker interface {   // required
		Send(ctx context.Context, m broker.Message) (broker.Receipt, error)
	}

	Source, Topic, Type, Subject string
	Since, Until                 time.Time // when they were recorded: at Since or later, before Until

	Limit int     // at most so many, the oldest first; default: no limit
	Rate  float64 // events a second; default 500
}

// Resend sends events that the outbox keeps again, as they are, the oldest first, and returns how many it sent, also with
// an error. It is for a broker that lost what it had confirmed: consumers ask for what they miss in a stream, but nothing
// shows them that the last event of a stream, or one without order, is missing. Whoever has handled an event finds a
// duplicate; a consumer that no longer remembers whether it has (handlers.Config.InboxRetention) makes it a dead letter.
func Resend(ctx context.Context, c ResendConfig) (sent int, err error) {
	c.Schema, c.Rate = cmp.Or(c.Schema, rocketflow.DefaultSchema), cmp.Or(c.Rate, 500)
	for _, field := range []struct {
		name string
		bad  bool
	}{
		{"Pool", c.Pool == nil}, {"Broker", c.Broker == nil}, {"Limit", c.Limit < 0}, {"Rate", c.Rate < 0},
		{"Until", !c.Until.IsZero() && !c.Since.Before(c.Until)},
	} {
		if field.bad {
			return 0, valid.Field("outbox.ResendConfig."+field.name, "missing or out of range")
		}
	}
	limiter := rate.NewLimiter(rate.Limit(c.Rate), max(1, int(c.Rate/10)))
	sql := queries.Parse(queriesSQL+missingEventsSQL, c.Schema)
	database, _, err := installation.Read(ctx, c.Pool, c.Schema)
	if err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	for after := uuid.Nil; ; {
		limit := resendPageRows
		if c.Limit > 0 {
			limit = min(limit, c.Limit-sent)
		}
		rows, err := c.Pool.Query(ctx, sql.Get("Resend"), after.String(), c.Source, c.Topic, c.Type, c.Subject, instant(c.Since), instant(c.Until), limit, resendPageBytes)
		if err != nil {
			return sent, fmt.Errorf("resend: read events: %w", err)
		}
		page, err := pgx.CollectRows(rows, scanEvent(database))
		if err != nil {
			return sent, fmt.Errorf("resend: read events: %w", err)
		}
		for _, e := range page {
			if err := limiter.Wait(ctx); err != nil {
				return sent, fmt.Errorf("resend: %w", err)
			}
			if _, err := c.Broker.Send(ctx, wire.MessageOf(e)); err != nil {
				return sent, fmt.Errorf("resend event %s: %w", e.ID, err)
			}
			sent++
			after = e.ID
		}
		if !isFull(page, limit, resendPageBytes) || sent == c.Limit {
			return sent, nil
		}
	}
}

// instant is null for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
