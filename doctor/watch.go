package doctor

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// firstExamination is when a started Doctor examines first: the parts of its process have started by then.
const firstExamination = 15 * time.Second

// Start examines 15 s later, and then every Config.Interval, until Stop. Last has the newest report. Findings that are new are
// logged, and so is their end. Starting a started Doctor does nothing.
func (d *Doctor) Start(ctx context.Context) error {
	return d.work.Start(ctx, func(context.Context) error {
		d.work.Go(d.watch)
		return nil
	})
}

// Stop ends the examination that runs, and waits for its end. Last returns nil then.
func (d *Doctor) Stop(ctx context.Context) error {
	err := d.work.Stop(ctx)
	d.last.Store(nil)
	return err
}

// Last returns the report of the newest examination since Start; nil: there is none.
func (d *Doctor) Last() *Report { return d.last.Load() }

func (d *Doctor) watch(ctx context.Context) {
	if !background.Sleep(ctx, d.config.Clock, min(firstExamination, d.config.Interval)) {
		return
	}
	background.Loop{Clock: d.config.Clock}.Every(ctx, d.config.Interval, func(ctx context.Context) {
		report := d.Examine(ctx)
		if ctx.Err() != nil {
			return
		}
		d.logChanges(d.last.Swap(report), report)
		if d.config.Examined != nil {
			if err := guard.Run(func() { d.config.Examined(report) }); err != nil {
				d.config.Logger.Error("a function of the application failed", "function", "doctor.Config.Examined", "error", err)
			}
		}
	})
}

// logChanges logs the findings that are new since a report, which may be nil, and those that are gone.
func (d *Doctor) logChanges(before, now *Report) {
	type finding struct{ code, subject string }
	old := map[finding]bool{}
	if before != nil {
		for _, r := range before.Findings() {
			old[finding{r.Code, r.Subject}] = true
		}
	}
	found := map[finding]bool{}
	for _, r := range now.Findings() {
		key := finding{r.Code, r.Subject}
		found[key] = true
		if old[key] {
			continue
		}
		log := d.config.Logger.Warn
		if r.Severity == Critical {
			log = d.config.Logger.Error
		}
		log("the doctor has found something", "code", r.Code, "subject", r.Subject, "observed", r.Observed, "needed", r.Needed, "mend", r.Mend, "see", r.Docs)
	}
	answered := map[finding]bool{}
	for _, r := range now.Results {
		if r.Status == OK {
			answered[finding{r.Code, ""}] = true
		}
	}
	for key := range old {
		if !found[key] && answered[finding{key.code, ""}] {
			d.config.Logger.Info("a finding of the doctor is gone", "code", key.code, "subject", key.subject)
		}
	}
}
