package console

import (
	"context"
	"net/http"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// overviewService is a service of the overview.
type overviewService struct {
	Name     string
	Overview *operate.Overview // nil: it was never read
	ReadAt   time.Time
	Problem  string
	Owed     tally
	Oldest   time.Time // when the oldest owed event was recorded
	Parked   tally
	Dead     tally
	Stopped  int64 // events that wait for sagas, and failed or expired
	Samples  []sample
	Lags     map[string]lag
	State    string // not known, needs action, late, waiting, or ok
}

func (q *request) overviewPage() error {
	s := q.look()
	if s == nil {
		return refuse(http.StatusServiceUnavailable, "Nothing is read yet", "The services are being read for the first time: load the page again.")
	}
	q.show(http.StatusOK, "overview", "Overview", struct {
		Services []overviewService
	}{overviewOf(s)})
	return nil
}

func overviewOf(states []serviceState) (list []overviewService) {
	for _, v := range states {
		o := overviewService{Name: v.name, Overview: v.overview, ReadAt: v.readAt, Problem: v.problem, Samples: v.history, Lags: v.lags, State: "not known"}
		if v.overview != nil {
			o.Owed, o.Oldest = owed(v.overview)
			o.Parked, o.Dead = parked(v.overview)
			for _, w := range v.overview.Waiting {
				if w.Status == operate.WaitingFailed || w.Status == operate.WaitingExpired {
					o.Stopped += w.Events
				}
			}
			if v.problem == "" {
				o.State = o.state()
			}
		}
		list = append(list, o)
	}
	return list
}

// Limits beyond which work is late, as the doctor has them by default.
const (
	lateOwed    = time.Minute
	lateTimeout = time.Minute
)

// state returns the most urgent of the states of a service that was read.
func (o *overviewService) state() string {
	v := o.Overview
	switch {
	case o.Dead.N > 0 || v.Rejected > 0 || o.Stopped > 0 || v.Timeouts.Stuck > 0:
		return "needs action"
	case o.Owed.N > 0 && v.Now.Sub(o.Oldest) > lateOwed, !v.Timeouts.OldestDue.IsZero() && v.Now.Sub(v.Timeouts.OldestDue) > lateTimeout:
		return "late"
	case o.Parked.N > 0:
		return "waiting"
	}
	return "ok"
}

// Lag returns what a consumer has not read, for the template.
func (o overviewService) Lag(consumer string) *LagView {
	l, known := o.Lags[consumer]
	if !known {
		return &LagView{Problem: "the broker was not asked"}
	}
	return &LagView{Messages: l.messages, Oldest: l.oldest, Queues: l.queues, Behind: l.behind, Listed: l.behind[:min(len(l.behind), maxBehind)], Problem: l.problem}
}

// Streams counts the parked streams, for the template.
func (o overviewService) Streams() tally {
	return tally{o.Overview.ParkedStreams, o.Overview.ParkedStreams >= operate.MaxParkedStreams}
}

// LagView is what a consumer has not read.
type LagView struct {
	Messages int64
	Oldest   time.Time
	Queues   int
	Behind   []queueLag // those that it has not read to their end
	Listed   []queueLag // of these, the ones that the page lists
	Problem  string
}

// maxBehind is how many queues of a consumer a page lists.
const maxBehind = 20

func (q *request) consumersPage() error {
	s := q.look()
	if s == nil {
		return refuse(http.StatusServiceUnavailable, "Nothing is read yet", "The services are being read for the first time: load the page again.")
	}
	pauses, unread := ofServices(q, "pauses", func(ctx context.Context, o *operate.Operator) ([]operate.Pause, error) { return o.Pauses(ctx, "") })
	q.show(http.StatusOK, "consumers", "Consumers", struct {
		Asked    bool
		Services []overviewService
		Pauses   map[string][]operate.Pause // by service
		Unread   []unreadService
		Now      time.Time
	}{q.config.Broker != nil, overviewOf(s), pauses, unread, time.Now()})
	return nil
}
