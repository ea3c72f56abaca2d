package console

import (
	"net/http"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/operate"
)

// doctorPage shows the newest examination.
func (q *request) doctorPage() error {
	report := q.examined.Load()
	if q.config.Doctor != nil {
		if own := q.config.Doctor.Last(); own != nil && (report == nil || own.ExaminedAt.After(report.ExaminedAt)) {
			report = own
		}
	}
	view := struct {
		Configured bool
		Report     *doctor.Report
		Findings   []doctor.Result
		Unknown    []doctor.Result
		Mends      []string // of Unknown, each once
		OK         []doctor.Result
		Now        time.Time
	}{Configured: q.config.Doctor != nil, Report: report, Now: time.Now()}
	if report != nil {
		view.Unknown = report.Unknown()
		for _, r := range view.Unknown {
			if r.Mend != "" && !slices.Contains(view.Mends, r.Mend) {
				view.Mends = append(view.Mends, r.Mend)
			}
		}
		for _, severity := range []doctor.Severity{doctor.Critical, doctor.Warning} {
			for _, r := range report.Findings() {
				if r.Severity == severity {
					view.Findings = append(view.Findings, r)
				}
			}
		}
		for _, r := range report.Results {
			if r.Status == doctor.OK {
				view.OK = append(view.OK, r)
			}
		}
	}
	q.show(http.StatusOK, "doctor", "Doctor", view)
	return nil
}

// examine has the doctor look now.
func (q *request) examine() error {
	if err := q.allowed(Examine, q.config.Services, nil); err != nil {
		return err
	}
	if q.config.Doctor == nil {
		return refuse(http.StatusNotFound, "No doctor is configured", "Set console.Config.Doctor.")
	}
	if !q.examining.TryLock() {
		return refuse(http.StatusConflict, "The doctor is looking", "An examination runs: its result comes in a moment.")
	}
	defer q.examining.Unlock()
	report := q.config.Doctor.Examine(q.r.Context())
	if q.r.Context().Err() == nil {
		q.examined.Store(report)
	}
	return q.redirect("doctor")
}

// reconciliationPage shows the newest reconciliation.
func (q *request) reconciliationPage() error {
	view := struct {
		Result                               *operate.Reconciliation
		Problem                              string
		At                                   time.Time
		By                                   string
		Since                                time.Duration
		Published, Handled, Waiting, Missing int
		Unknown                              int
		Now                                  time.Time
	}{Since: q.config.Reconcile.Since, Now: time.Now()}
	if view.Since == 0 {
		view.Since = time.Hour
	}
	if last := q.reconciled.Load(); last != nil {
		view.Result, view.At, view.By = last.result, last.at, last.by
		if last.err != nil {
			view.Problem = last.err.Error()
		} else {
			view.Published, view.Handled, view.Waiting, view.Missing, view.Unknown = last.result.Totals()
		}
	}
	q.show(http.StatusOK, "reconciliation", "Reconciliation", view)
	return nil
}

// reconcile compares now.
func (q *request) reconcile() error {
	if err := q.allowed(Reconcile, q.config.Services, nil); err != nil {
		return err
	}
	if !q.reconciling.TryLock() {
		return refuse(http.StatusConflict, "A reconciliation runs", "Its result comes in a moment.")
	}
	defer q.reconciling.Unlock()
	config := q.config.Reconcile
	config.Mend = false
	result, err := q.system.Reconcile(q.r.Context(), config)
	if q.r.Context().Err() != nil && err != nil {
		return refuse(http.StatusGatewayTimeout, "The reconciliation took too long", "Compare a shorter time, by console.Config.Reconcile, or with `rocketflow reconcile`.")
	}
	q.reconciled.Store(&reconciled{result, err, time.Now(), q.viewer.Name})
	return q.redirect("reconciliation")
}
