package app

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// checkTimeout bounds each check of Ready and Report.
const checkTimeout = 2 * time.Second

// Status is the state of a service in a Report.
type Status string

// The values of Status.
const (
	// StatusOK: everything works.
	StatusOK Status = "ok"
	// StatusDegraded: requests can be served, and something needs attention. Report.Problems says what.
	StatusDegraded Status = "degraded"
	// StatusNotReady: requests can't be served. Ready returns an error.
	StatusNotReady Status = "not_ready"
)

// Report describes the present state of a service. Health.ReadyHandler serves it as JSON.
type Report struct {
	Service  string          `json:"service"`                   // HealthConfig.Service
	Status   Status          `json:"status"`                    // follows from Problems
	Problems []Problem       `json:"problems,omitempty"`        // in the order of the parts' start
	Backlog  Backlog         `json:"backlog"`                   // zero if the database can't be reached
	Rejected []RejectedTopic `json:"rejected_topics,omitempty"` // topics whose events the broker rejects
	// Paused is what operators have paused, as this process has noticed it. It is no problem, and doesn't change Status.
	Paused []handlers.Pause `json:"paused,omitempty"`
}

// Problem is one reason why a service is not ready, or degraded.
type Problem struct {
	Part   Part   `json:"part"`   // the part that has the problem
	Reason string `json:"reason"` // what is wrong, in one line
}

// Backlog describes the events that are owed to the broker.
type Backlog struct {
	Events        int64   `json:"events"`         // the number of owed events, rejected ones included
	OldestSeconds float64 `json:"oldest_seconds"` // the age of the oldest of them, in seconds
}

// RejectedTopic describes the owed events of one topic that the broker rejects.
type RejectedTopic struct {
	Topic  string    `json:"topic"`
	Events int64     `json:"events"` // the number of owed events of the topic that are rejected
	Since  time.Time `json:"since"`  // when the broker first rejected the first of them
	Reason string    `json:"reason"` // why the broker rejected one of them
}

// partService is the part that a Report names while the service isn't started.
const partService Part = "service"

var (
	errNotStarted = errors.New("not started")
	errStopped    = errors.New("stopping, or stopped")
)

// HealthConfig names the parts that a Health checks. All fields are required.
type HealthConfig struct {
	Service string
	Pool    *pgxpool.Pool
	Client  *rocketmq.Client
	Outbox  *outbox.Outbox
	Router  *handlers.Router
}

// Health checks the parts of a service. An App has one; rocketflowfx provides it for fx. All methods are safe for concurrent
// use.
type Health struct {
	config HealthConfig
	reason atomic.Pointer[error] // why the service doesn't serve; nil: it does
}

// NewHealth returns a Health that isn't ready until Start is called.
func NewHealth(c HealthConfig) *Health {
	h := &Health{config: c}
	h.reason.Store(&errNotStarted)
	return h
}

// Start records that all parts are started. Call it after them.
func (h *Health) Start(context.Context) error {
	h.reason.Store(nil)
	return nil
}

// Stop records that the service stops. Call it before all parts are stopped.
func (h *Health) Stop(context.Context) error {
	h.reason.Store(&errStopped)
	return nil
}

// Ready returns nil if the service can serve requests: it is started and the database responds. It doesn't depend on the
// broker: while the broker is away transactions commit and their events are owed. Use it for a readiness probe, and Report
// or the metrics for alerts. It takes at most 2 s.
func (h *Health) Ready(ctx context.Context) error {
	if part, err := h.unready(ctx); err != nil {
		return printable.Errorf("%s: %w", string(part), err)
	}
	return nil
}

// unready returns why the service can't serve requests, and which part is the reason.
func (h *Health) unready(ctx context.Context) (Part, error) {
	if reason := h.reason.Load(); reason != nil {
		return partService, *reason
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return PartDatabase, h.config.Pool.Ping(ctx)
}

// Report checks all parts concurrently and returns their problems and the backlog. It takes at most 2 s.
func (h *Health) Report(ctx context.Context) Report {
	var (
		part                    Part
		ready, reached, backlog error
		checks                  sync.WaitGroup
		r                       = Report{Service: h.config.Service, Status: StatusOK}
		bounded, cancel         = context.WithTimeout(ctx, checkTimeout)
	)
	defer cancel()
	checks.Go(func() { part, ready = h.unready(bounded) })
	if h.reason.Load() == nil {
		checks.Go(func() { reached = h.config.Client.Ping(bounded) })
		checks.Go(func() {
			var oldest time.Duration
			r.Backlog.Events, oldest, backlog = h.config.Outbox.Backlog(bounded)
			r.Backlog.OldestSeconds = oldest.Seconds()
		})
	}
	checks.Wait()
	if ready != nil {
		r.Status = StatusNotReady
		r.add(part, ready)
		backlog = nil // for the same reason
	}
	r.add(PartBroker, reached)
	r.add(PartOutbox, backlog)
	for _, t := range h.config.Outbox.Rejected() {
		reason := printable.Line(t.Reason, printable.Reason)
		r.Rejected = append(r.Rejected, RejectedTopic{Topic: t.Topic, Events: t.Events, Since: t.Since, Reason: reason})
		r.add(PartOutbox, printable.Errorf("the broker rejects events of topic %s: %s", t.Topic, reason))
	}
	r.add(PartConsumers, h.config.Router.Err())
	r.Paused = h.config.Router.Paused()
	return r
}

// add records err as a problem of a part, unless it is nil.
func (r *Report) add(part Part, err error) {
	if err == nil {
		return
	}
	if r.Status == StatusOK {
		r.Status = StatusDegraded
	}
	r.Problems = append(r.Problems, Problem{part, printable.Line(err.Error(), printable.Reason)})
}

// ReadyHandler returns a handler for a readiness probe, such as GET /readyz. It responds with the Report as JSON, and with
// status 200 where Ready returns nil, else 503. The reasons contain addresses and names of topics: don't serve it to the
// public.
func (h *Health) ReadyHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		report := h.Report(req.Context())
		status := http.StatusOK
		if report.Status == StatusNotReady {
			status = http.StatusServiceUnavailable
		}
		respond(w, status, report)
	})
}

// LiveHandler returns a handler for a liveness probe, such as GET /livez. It always responds with status 200: an outage of
// the database or of the broker doesn't change the response, since a restart of the process wouldn't end it.
func (h *Health) LiveHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]string{"service": h.config.Service, "status": string(StatusOK)})
	})
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails if the client has gone
}
