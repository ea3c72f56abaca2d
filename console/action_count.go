package console

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// The page before an action answers soon, however long the list is: it looks at maxLooks pages of it, of at most maxPage things.
const (
	maxLooks = 2
	maxPage  = 5000
)

// countRows counts what an action would change, up to the cap.
func (q *request) countRows(ctx context.Context, c *change) error {
	switch c.Action {
	case Edit:
		return q.readEdited(ctx, c)
	case ApplyEvent:
		return q.readSaga(ctx, c)
	case Retry, Discard:
		return c.countLetters(ctx)
	case AcceptGap:
		return c.countGap(ctx)
	case RetryRejected, RedirectRejected, DiscardRejected:
		return c.countRejected(ctx)
	case RetryWaiting, DiscardWaiting:
		return c.countWaiting(ctx)
	}
	return nil
}

func (c *change) countGap(ctx context.Context) error {
	f := c.Filter
	f.Limit = 2
	list, err := c.Service.Operator.ParkedEvents(ctx, f)
	list = slices.DeleteFunc(list, func(e operate.ParkedEvent) bool { return e.Reason != operate.StateGap })
	if c.Rows = int64(len(list)); c.Rows == 1 {
		c.tell(list[0].LastError, "Type", list[0].Event.Type, "Topic", list[0].Event.Topic, "Subject", list[0].Event.Subject)
	}
	return err
}

func (c *change) countLetters(ctx context.Context) error {
	f := c.Filter
	filter := operate.ParkedPageFilter{
		Dead: true, Consumer: f.Consumer, EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject, Error: f.Error,
	}
	return c.countPages(func(limit int, after operate.Cursor) (int, operate.Cursor, bool, error) {
		filter.Limit, filter.After = limit, after
		page, err := c.Service.Operator.ParkedPage(ctx, filter)
		if err != nil {
			return 0, "", false, err
		}
		c.LookedTo = page.ScannedTo
		if f.EventID != uuid.Nil && len(page.Events) == 1 {
			e := page.Events[0]
			c.tell(e.LastError, "Type", e.Type, "Topic", e.Topic, "Subject", e.Subject)
		}
		return len(page.Events), page.Next, !page.ScannedTo.IsZero(), nil
	})
}

func (c *change) countRejected(ctx context.Context) error {
	f := c.Rejected
	filter := operate.RejectedPageFilter{EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject}
	return c.countPages(func(limit int, after operate.Cursor) (int, operate.Cursor, bool, error) {
		filter.Limit, filter.After = limit, after
		page, err := c.Service.Operator.RejectedPage(ctx, filter)
		if err != nil {
			return 0, "", false, err
		}
		if f.EventID != uuid.Nil && len(page.Events) == 1 {
			r := page.Events[0]
			c.tell(r.Reason, "Type", r.Event.Type, "Topic", r.Event.Topic, "Subject", r.Event.Subject)
		}
		return len(page.Events), page.Next, page.Partial, nil
	})
}

func (c *change) countWaiting(ctx context.Context) error {
	f := c.Waiting
	if len(f.IDs) == 1 {
		f.Limit = 1
		list, err := c.Service.Operator.WaitingEvents(ctx, f)
		if c.Rows = int64(len(list)); c.Rows == 1 {
			w := list[0]
			c.tell(w.LastError, "Saga", w.Saga, "Key", w.Key, "Event", w.Event.ID.String(), "Type", w.Event.Type, "Topic", w.Event.Topic)
		}
		return err
	}
	filter := operate.WaitingPageFilter{Stopped: true, Saga: f.Saga, Key: f.Key}
	if len(f.Statuses) == 1 {
		filter.Status = f.Statuses[0]
	} else {
		c.Facts = []Field{{Title: "Status", Value: "failed or expired"}}
	}
	return c.countPages(func(limit int, after operate.Cursor) (int, operate.Cursor, bool, error) {
		filter.Limit, filter.After = limit, after
		page, err := c.Service.Operator.WaitingPage(ctx, filter)
		if err != nil {
			return 0, "", false, err
		}
		return len(page.Events), page.Next, page.Partial, nil
	})
}

// countPages counts what pages of a list have, from c.After. page reads at most limit things after a cursor, and returns how many it has
// found, where the next page begins, and whether it stopped because it had looked at enough rows.
func (c *change) countPages(page func(limit int, after operate.Cursor) (n int, next operate.Cursor, partial bool, err error)) error {
	c.Rows = 0
	next := c.After
	for range maxLooks {
		n, following, partial, err := page(min(c.Cap-int(c.Rows), maxPage), next)
		if err != nil {
			return err
		}
		c.Rows += int64(n)
		next = following
		enough := c.Rows >= int64(c.Cap)
		c.More = next != "" && enough && !partial
		c.Partial = next != "" && !c.More
		if next == "" || enough {
			break
		}
	}
	if c.Rows == 0 {
		c.Next = next
	}
	return nil
}

// tell keeps facts about the only thing that matches: pairs of a title and a value. Those that the action selects by are shown anyway.
func (c *change) tell(lastError string, pairs ...string) {
	c.LastError, c.Facts = lastError, nil
	selected := c.Fields()
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" && !slices.ContainsFunc(selected, func(f Field) bool { return f.Title == pairs[i] }) {
			c.Facts = append(c.Facts, Field{Title: pairs[i], Value: pairs[i+1]})
		}
	}
}
