package console

import (
	"context"
	"net/http"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// anyStatus selects waiting events of each status, in an address.
const anyStatus = "any"

// waitingPage lists the events that wait for sagas of a service: those that failed or expired, or others on demand.
func (q *request) waitingPage() error {
	s, err := q.service()
	if err != nil {
		return err
	}
	f := operate.WaitingPageFilter{Saga: q.arg("saga"), Key: q.arg("key"), After: operate.Cursor(q.arg("after"))}
	status := q.arg("status")
	switch operate.WaitingStatus(status) {
	case "":
		f.Stopped = true
	case operate.WaitingFailed, operate.WaitingExpired:
		f.Stopped, f.Status = true, operate.WaitingStatus(status)
	case operate.WaitingForState, operate.WaitingForRetry:
		f.Status = operate.WaitingStatus(status)
	case anyStatus:
	default:
		return refuse(http.StatusBadRequest, "No such status", "The status of a waiting event is waiting, retry, failed or expired; any selects all.")
	}
	page, err := read(q.r.Context(), &q.reads, key("waiting", s.Name, f), func(ctx context.Context) (*operate.WaitingPage, error) {
		return s.Operator.WaitingPage(ctx, f)
	})
	if err != nil {
		return badFilter(err)
	}
	q.show(http.StatusOK, "waiting", "Waiting events", struct {
		Service  string
		Filter   operate.WaitingPageFilter
		Status   string
		Statuses [][2]string
		Page     *operate.WaitingPage
		Now      time.Time
	}{s.Name, f, status, [][2]string{
		{"", "failed or expired"}, {"failed", "failed"}, {"expired", "expired"}, {"retry", "tried again"}, {"waiting", "waiting for a state"}, {anyStatus, "any"},
	}, page, time.Now()})
	return nil
}
