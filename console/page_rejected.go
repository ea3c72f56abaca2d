package console

import (
	"context"
	"net/http"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// rejectedPage lists the owed events of a service that the broker rejects, and the topics of which it rejects all.
func (q *request) rejectedPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.RejectedPageFilter{Source: q.arg("source"), Topic: q.arg("topic"), Type: q.arg("type"), Subject: q.arg("subject"), After: operate.Cursor(q.arg("after"))}
	topics, err := read(q.r.Context(), &q.reads, key("rejected topics", s.Name), func(ctx context.Context) ([]operate.RejectedTopic, error) {
		return s.Operator.RejectedTopics(ctx)
	})
	if err != nil {
		return err
	}
	page, err := read(q.r.Context(), &q.reads, key("rejected", s.Name, f), func(ctx context.Context) (*operate.RejectedPage, error) {
		return s.Operator.RejectedPage(ctx, f)
	})
	if err != nil {
		return badFilter(err)
	}
	q.show(http.StatusOK, "rejected", "Rejected events", struct {
		Service string
		Filter  operate.RejectedPageFilter
		Topics  []operate.RejectedTopic
		Page    *operate.RejectedPage
		Now     time.Time
	}{s.Name, f, topics, page, time.Now()})
	return nil
}
