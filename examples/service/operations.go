package service

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rocketflow/rocketflow/app"
)

// Operate adds /metrics and /openapi.yaml.
func (m *Mux) Operate(metrics prometheus.Gatherer, openAPI []byte) {
	m.mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	m.mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI) // fails if the client has gone
	})
}

// Health adds /healthz and /readyz. A service is ready while the broker is away: it takes orders, whose events are owed.
func (m *Mux) Health(h *app.Health) {
	m.mux.Handle("GET /healthz", h.LiveHandler())
	m.mux.Handle("GET /readyz", h.ReadyHandler())
}
