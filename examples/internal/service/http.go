package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// Handler answers a request with a status and a body for it, or with an error:
//
//	*Error                          its status
//	ErrBackpressure, no database    503, to be tried again
//	any other                       500, and a log line
type Handler func(r *http.Request) (status int, body any, err error)

// Error is an answer that is not what the client wished for.
type Error struct {
	Status  int
	Message string
	Field   string // of the request, for a 400
}

func (e *Error) Error() string { return e.Message }

// NotFound is a 404.
func NotFound(format string, args ...any) error {
	return &Error{Status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}

// Conflict is a 409.
func Conflict(format string, args ...any) error {
	return &Error{Status: http.StatusConflict, Message: fmt.Sprintf(format, args...)}
}

// BadField is a 400 that names the field.
func BadField(field, format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Message: field + ": " + fmt.Sprintf(format, args...), Field: field}
}

// Mux routes requests to Handlers. What it does not know is answered with JSON as well.
type Mux struct {
	mux http.ServeMux
	log *slog.Logger
}

// NewMux returns a Mux.
func NewMux(log *slog.Logger) *Mux { return &Mux{log: log} }

// Handle registers h for a pattern of http.ServeMux.
func (m *Mux) Handle(pattern string, h Handler) {
	m.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		status, body, err := h(r)
		if err != nil {
			status, body = m.answer(r, err)
		}
		write(w, status, body)
	})
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p)
			write(w, http.StatusInternalServerError, errorBody{Error: "internal error"})
		}
	}()
	if _, pattern := m.mux.Handler(r); pattern == "" {
		w = &jsonError{ResponseWriter: w}
	}
	m.mux.ServeHTTP(w, r)
}

type errorBody struct {
	Error string `json:"error"`
	Field string `json:"field,omitempty"`
}

func (m *Mux) answer(r *http.Request, err error) (int, errorBody) {
	var answer *Error
	switch {
	case errors.As(err, &answer):
		return answer.Status, errorBody{Error: answer.Message, Field: answer.Field}
	case errors.Is(err, rocketflow.ErrBackpressure):
		return http.StatusServiceUnavailable, errorBody{Error: "too many events wait for the broker: try again later"}
	case isPassing(err):
		m.log.Warn("database can't serve", "method", r.Method, "path", r.URL.Path, "error", err)
		return http.StatusServiceUnavailable, errorBody{Error: "the database can't serve: try again later"}
	}
	if r.Context().Err() == nil {
		m.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	return http.StatusInternalServerError, errorBody{Error: "internal error"}
}

// isPassing tells whether Postgres is away, is overloaded, or gave up a transaction for another's sake.
func isPassing(err error) bool {
	var connect *pgconn.ConnectError
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch answer.Code[:2] {
		case "08", "40", "53", "57": // connection, rollback, resources, operator
			return true
		}
	}
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}

// jsonError turns the plain text of http.ServeMux's own answers into JSON.
type jsonError struct {
	http.ResponseWriter
	status int
}

func (w *jsonError) WriteHeader(status int) {
	w.status = status
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *jsonError) Write(b []byte) (int, error) {
	if w.status < http.StatusBadRequest {
		return w.ResponseWriter.Write(b)
	}
	write(w.ResponseWriter, w.status, errorBody{Error: http.StatusText(w.status)})
	return len(b), nil
}
