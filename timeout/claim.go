package timeout

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// claimedPage is a page of timeouts that no other process sweeps at the same time.
type claimedPage struct {
	rows    []handOver
	full    bool          // there may be more to claim
	horizon time.Duration // that the claim went by
	took    time.Duration
	now     time.Time     // by Postgres; zero if there are no rows and no look
	hasNext bool          // whether nextIn is known
	nextIn  time.Duration // until the next timeout has to be swept
}

// claimPage claims the timeouts of one page: those that have to be swept at or after from, or all if it is nil. look makes it look
// for the time of the next timeout, unless the page is full.
func (s *Scheduler) claimPage(ctx context.Context, from *time.Time, look bool) (page claimedPage, err error) {
	page.horizon = s.horizon()
	began := time.Now()
	claim := func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql.Get("Sweep"), int32(s.cfg.SweepPage), s.cfg.SweepGrace.Seconds(), s.cfg.RetryInterval.Seconds(), //nolint:gosec // a page is small
			page.horizon.Seconds(), s.cfg.StuckAfter.Seconds(), from)
		if err != nil {
			return err
		}
		page.rows, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h handOver, err error) {
			e := &h.event
			var headers []byte
			err = row.Scan(&e.TimeoutKey, &e.TimeoutName, &e.ID, &h.dueAt, &e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject,
				&e.ContentType, &headers, &e.Body, &page.now, &h.handedOver, &h.sends, &h.newlyStuck)
			if err != nil {
				return h, err
			}
			return h, stored.SetHeaders(e, headers)
		})
		page.full = len(page.rows) == s.cfg.SweepPage
		if err != nil || !look || page.full {
			return err
		}
		var off string
		var micros *int64
		if err := tx.QueryRow(ctx, s.sql.Get("NextSweep")).Scan(&off, &page.now, &micros); err != nil {
			return err
		}
		if micros != nil {
			page.hasNext, page.nextIn = true, time.Duration(*micros)*time.Microsecond
		}
		return nil
	}
	err = lazytx.Retry(ctx, func() error { return s.inTx(ctx, claim) })
	page.took = time.Since(began)
	if err != nil {
		return claimedPage{}, fmt.Errorf("claim timeouts: %w", err)
	}
	for i, now := 0, s.cfg.Clock.Now(); i < len(page.rows); i++ {
		page.rows[i].dueHere = now.Add(page.rows[i].dueAt.Sub(page.now))
	}
	s.reportStuck(page.rows, page.now)
	return page, nil
}

// reportStuck reports the timeouts that have just become stuck: each of them to the listener, and one log line for each
// type of event.
func (s *Scheduler) reportStuck(page []handOver, now time.Time) {
	type eventType struct{ topic, eventType string }
	counts := map[eventType]int{}
	for _, h := range page {
		if h.newlyStuck {
			counts[eventType{h.event.Topic, h.event.Type}]++
		}
	}
	for _, h := range page {
		if !h.newlyStuck {
			continue
		}
		i := h.info()
		i.Late = now.Sub(h.dueAt)
		listen.Notify(s.cfg.Listener.Stuck, i)
		t := eventType{i.Topic, i.Type}
		if counts[t] == 0 {
			continue
		}
		s.cfg.Logger.Error("timeouts are stuck: their events were sent ten times or more and no consumer has handled them; they are sent once a day from now on. "+
			"Check that a consumer of the topic has a handler for the type, look at its dead letters (`rocketflow redrive list`), or disarm the timeouts. The line names one of them",
			keyTimeouts, counts[t], keyKey, i.Key, keyName, i.Name, keyType, i.Type, keyTopic, i.Topic, keyEvent, i.Epoch, keySends, i.Sends, keyOverdue, i.Late)
		counts[t] = 0
	}
}
