package doctor

import (
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Group is what a check looks at.
type Group string

// The groups, in the order of a report.
const (
	Host      Group = "host"
	Postgres  Group = "postgres"
	RocketMQ  Group = "broker"
	Outbox    Group = "outbox"
	Consumers Group = "consumers"
	Flows     Group = "flows" // sagas and timeouts
)

// Severity is how bad it is if a check finds something.
type Severity string

const (
	// Critical means that a promise doesn't hold, or that something stands still until it is mended.
	Critical Severity = "critical"
	// Warning means that a promise doesn't hold under a fault that may come, or that something is slower or costs more than it must.
	Warning Severity = "warning"
)

// Status is the answer of a check.
type Status string

const (
	// OK means that the check looked and found nothing.
	OK Status = "ok"
	// Finding means that something is not as needed.
	Finding Status = "finding"
	// Unknown means that the check could not look: Result.Observed has the reason.
	Unknown Status = "unknown"
)

// Result is the answer of one check about one subject. All texts are one line that is safe to show, except Mend, which may be
// several lines of commands.
type Result struct {
	Code     string   `json:"code"` // of the check
	Group    Group    `json:"group"`
	Severity Severity `json:"severity"` // of the check, whatever the answer is
	Status   Status   `json:"status"`
	Subject  string   `json:"subject"`          // what was looked at, such as a database or a consumer
	Observed string   `json:"observed"`         // what was seen or, with Unknown, why nothing was
	Needed   string   `json:"needed,omitempty"` // what it should be
	Mend     string   `json:"mend,omitempty"`   // the command or SQL that mends it, or gives the right that is missing
	Docs     string   `json:"docs"`             // the section about the check, such as docs/doctor.md#postgres-primary

	cause error // with Unknown: the error that stopped the check, if one did
}

// Report is the result of an examination.
type Report struct {
	ExaminedAt time.Time     `json:"examined_at"` // by the host's clock
	Took       time.Duration `json:"took_ns"`
	Results    []Result      `json:"results"` // in the order of Checks
}

// Findings returns the results that are findings.
func (r *Report) Findings() []Result { return r.with(Finding) }

// Unknown returns the results of checks that could not look.
func (r *Report) Unknown() []Result { return r.with(Unknown) }

func (r *Report) with(s Status) []Result {
	var list []Result
	for _, result := range r.Results {
		if result.Status == s {
			list = append(list, result)
		}
	}
	return list
}

// Check describes a check.
type Check struct {
	Code     string // stable
	Group    Group
	Severity Severity
	Title    string // what is as it should be, in one line
	About    string // what a finding means and how it is mended, for docs/doctor.md
	Pre      bool   // whether it can look before the tables are installed
}

// anchor returns the place of the check's documentation.
func (c Check) anchor() string { return "docs/doctor.md#" + c.Code }

// Limits of the texts of a result, in bytes.
const (
	maxText = 600
	maxMend = 2000
)

// ok returns the answer that what was seen is as needed.
func ok(observed string, args ...any) Result {
	return Result{Status: OK, Observed: fmt.Sprintf(observed, args...)}
}

// found returns a finding.
func found(observed, needed, mend string) Result {
	return Result{Status: Finding, Observed: observed, Needed: needed, Mend: mend}
}

// unknown returns the answer that the check could not look. An argument that is a cause is kept.
func unknown(reason string, args ...any) Result {
	r := Result{Status: Unknown, Observed: fmt.Sprintf(reason, args...)}
	for _, a := range args {
		if c, ok := a.(cause); ok {
			r.cause = c.err
		}
	}
	return r
}

// about returns the result with a subject other than the check's target.
func (r Result) about(subject string) Result {
	r.Subject = subject
	return r
}

// complete fills in what all results of a check on a target have in common, and makes the texts safe to show.
func (r Result) complete(c Check, subject string) Result {
	if r.Subject == "" {
		r.Subject = subject
	}
	r.Code, r.Group, r.Severity, r.Docs = c.Code, c.Group, c.Severity, c.anchor()
	r.Subject = printable.Line(r.Subject, maxText)
	r.Observed, r.Needed = printable.Line(r.Observed, maxText), printable.Line(r.Needed, maxText)
	r.Mend = printable.Text(r.Mend, maxMend)
	return r
}
