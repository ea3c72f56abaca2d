package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
)

// Unread is what a consumer has not read of a topic.
type Unread struct {
	Consumer string    `json:"consumer"`
	Group    string    `json:"group"`
	Topic    string    `json:"topic"`
	Messages int64     `json:"messages"`
	Oldest   time.Time `json:"oldest,omitzero"` // when the oldest was stored; zero: none is unread, or the group has never read the queue
}

// Unread asks a broker what the consumers of the schema have not read, topic by topic. What the broker answers is returned also with an
// error, which joins those of the other topics; once ctx has ended, no more is asked. A consumer whose group an older version has not
// recorded is left out.
func (o *Operator) Unread(ctx context.Context, b broker.Inspector) (list []Unread, err error) {
	var groups []Unread
	err = o.read(ctx, func(s snapshot) error {
		groups, err = collect(ctx, s, "Groups", func(row pgx.CollectableRow, u *Unread) error {
			return row.Scan(&u.Consumer, &u.Group, &u.Topic)
		}, maxRows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list consumers: %w", err)
	}
	for _, u := range groups {
		positions, e := b.QueuePositions(ctx, u.Group, u.Topic)
		if e != nil {
			err = errors.Join(err, e)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		for _, p := range positions {
			u.Messages += p.Lag()
			if !p.Unread.IsZero() && (u.Oldest.IsZero() || p.Unread.Before(u.Oldest)) {
				u.Oldest = p.Unread
			}
		}
		list = append(list, u)
	}
	return list, err
}
