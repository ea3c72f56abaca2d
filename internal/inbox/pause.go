package inbox

import (
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// PauseKind says what a pause holds: a value of the column kind.
type PauseKind string

// The kinds of pauses.
const (
	PausedConsumer PauseKind = "consumer" // everything
	PausedHandler  PauseKind = "handler"  // events of a topic and type, with what is behind them in their streams
	PausedStream   PauseKind = "stream"   // events of a topic and subject
)

// MaxPauses is the maximum number of pauses of a consumer: each turn reads them.
const MaxPauses = 100

// Pause is something that an operator has paused. Fields that don't belong to the kind are empty.
type Pause struct {
	Kind                 PauseKind
	Topic, Type, Subject string
	At                   time.Time
	Actor, Reason        string
}

// Pauses are those of a consumer.
type Pauses []Pause

// All reports whether the whole consumer is paused.
func (p Pauses) All() bool {
	return slices.ContainsFunc(p, func(x Pause) bool { return x.Kind == PausedConsumer })
}

// Hold reports whether the handler or the stream of an event is paused.
func (p Pauses) Hold(e rocketflow.Event) bool {
	return slices.ContainsFunc(p, func(x Pause) bool {
		switch x.Kind {
		case PausedHandler:
			return x.Topic == CleanKey(e.Topic) && x.Type == CleanKey(e.Type)
		case PausedStream:
			return x.Topic == CleanKey(e.Topic) && x.Subject == CleanKey(e.Subject)
		}
		return false
	})
}

// Lost reports whether something of p is not among later ones any more.
func (p Pauses) Lost(later Pauses) bool {
	return slices.ContainsFunc(p, func(x Pause) bool { return !later.Has(x) })
}

// Equal reports whether p and other hold the same.
func (p Pauses) Equal(other Pauses) bool { return !p.Lost(other) && !other.Lost(p) }

func (x Pause) same(y Pause) bool {
	return x.Kind == y.Kind && x.Topic == y.Topic && x.Type == y.Type && x.Subject == y.Subject
}

// QueueConditions reads Postgres' clock and what is paused of the consumer, in one statement.
func (c Consumer) QueueConditions(q *pgx.Batch, now *time.Time, pauses *Pauses) {
	q.Queue(c.sql.Get("Conditions"), c.name).QueryRow(func(row pgx.Row) error {
		var list [][]string
		*pauses = nil
		err := row.Scan(now, &list)
		for _, p := range list {
			*pauses = append(*pauses, Pause{Kind: PauseKind(p[0]), Topic: p[1], Type: p[2], Subject: p[3]})
		}
		return err
	})
}

// queuePauses reads what is paused of the consumer, since when, by whom and why.
func (c Consumer) queuePauses(q *pgx.Batch, pauses *Pauses) {
	q.Queue(c.sql.Get("Pauses"), c.name, int64(MaxPauses)).Query(func(rows pgx.Rows) error {
		var p Pause
		_, err := pgx.ForEachRow(rows, []any{&p.Kind, &p.Topic, &p.Type, &p.Subject, &p.At, &p.Actor, &p.Reason}, func() error {
			*pauses = append(*pauses, p)
			return nil
		})
		return err
	})
}

// Has reports whether something is paused.
func (p Pauses) Has(x Pause) bool {
	return slices.ContainsFunc(p, x.same)
}
