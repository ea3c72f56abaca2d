package service

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds each question of /readyz.
const readyTimeout = 2 * time.Second

// Operations is what operators see of a service.
type Operations struct {
	Pool      pinger
	Broker    pinger
	Consumers interface{ Err() error }
	Metrics   prometheus.Gatherer
	OpenAPI   []byte
}

type pinger interface {
	Ping(ctx context.Context) error
}

// Operate adds /healthz, /readyz, /metrics and /openapi.yaml.
func (m *Mux) Operate(o Operations) {
	m.Handle("GET /healthz", func(*http.Request) (int, any, error) {
		return http.StatusOK, statusBody{"ok"}, nil
	})
	m.Handle("GET /readyz", func(r *http.Request) (int, any, error) {
		if err := o.ready(r.Context()); err != nil {
			return 0, nil, &Error{Status: http.StatusServiceUnavailable, Message: oneLine(err)}
		}
		return http.StatusOK, statusBody{"ready"}, nil
	})
	m.mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{}))
	m.mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(o.OpenAPI) // the client has gone
	})
}

type statusBody struct {
	Status string `json:"status"`
}

func (o Operations) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := o.Pool.Ping(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if err := o.Broker.Ping(ctx); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := o.Consumers.Err(); err != nil {
		return fmt.Errorf("consumers: %w", err)
	}
	return nil
}
