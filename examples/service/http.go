package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// Handler returns the status and the body of the response to a request, or an error, for which the response is a problem
// document (RFC 9457):
//
//	*Error                                      its status
//	ErrBackpressure, the database is away       503, to be tried again
//	any other                                   500, and a log line
type Handler func(r *http.Request) (status int, body any, err error)

// Error is an error with the status of its response.
type Error struct {
	Status  int
	Message string
	Field   string // of the request, for a 400
}

func (e *Error) Error() string { return e.Message }

// NotFound returns an error with status 404.
func NotFound(format string, args ...any) error {
	return &Error{Status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}

// Conflict returns an error with status 409.
func Conflict(format string, args ...any) error {
	return &Error{Status: http.StatusConflict, Message: fmt.Sprintf(format, args...)}
}

// BadField returns an error with status 400 that names a field of the request.
func BadField(field, format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Message: field + ": " + fmt.Sprintf(format, args...), Field: field}
}

// BadMediaType returns an error with status 415.
func BadMediaType(format string, args ...any) error {
	return &Error{Status: http.StatusUnsupportedMediaType, Message: fmt.Sprintf(format, args...)}
}

const (
	// maxBody bounds a request's body.
	maxBody = 64 << 10
	// requestTime bounds the work for a request, so that its response is written within the server's WriteTimeout.
	requestTime = 15 * time.Second
)

// Mux routes requests to Handlers. The response to an unknown path or method is a problem document as well.
type Mux struct {
	mux http.ServeMux
	log *slog.Logger
}

// NewMux returns a Mux.
func NewMux(log *slog.Logger) *Mux { return &Mux{log: log} }

// Handle registers h for a pattern, as http.ServeMux does.
func (m *Mux) Handle(pattern string, h Handler) {
	m.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		status, body, err := h(r)
		if err != nil {
			writeProblem(w, m.problemOf(r, err))
			return
		}
		write(w, "application/json", status, body)
	})
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("handler panicked, the response is 500", "method", r.Method, "path", r.URL.Path, "panic", p)
			writeProblem(w, newProblem(http.StatusInternalServerError, "internal error"))
		}
	}()
	// http.ServeMux would redirect to the cleaned path, which may name another resource.
	if clean := path.Clean(r.URL.Path); clean != r.URL.Path {
		writeProblem(w, newProblem(http.StatusNotFound, noSuchPath))
		return
	}
	if _, pattern := m.mux.Handler(r); pattern == "" {
		w = &problemWriter{ResponseWriter: w}
	}
	m.mux.ServeHTTP(w, r)
}

// problem is a problem document (RFC 9457). Its type is about:blank: the status says what kind it is.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"` // of the request
}

const noSuchPath = "no such path"

func newProblem(status int, detail string) problem {
	return problem{Title: http.StatusText(status), Status: status, Detail: detail}
}

func (m *Mux) problemOf(r *http.Request, err error) problem {
	var known *Error
	switch {
	case errors.As(err, &known):
		p := newProblem(known.Status, known.Message)
		p.Field = known.Field
		return p
	case errors.Is(err, rocketflow.ErrBackpressure):
		return newProblem(http.StatusServiceUnavailable, "too many events wait for the broker: try again later")
	case isTransient(err):
		m.log.Warn("the database can't be used; the client gets status 503 and must repeat the request", "method", r.Method, "path", r.URL.Path, "error", err)
		return newProblem(http.StatusServiceUnavailable, "the database can't serve: try again later")
	}
	if r.Context().Err() == nil {
		m.log.Error("request failed, the response is 500", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	return newProblem(http.StatusInternalServerError, "internal error")
}

// isTransient reports whether the request may succeed when it is repeated: Postgres can't be reached, is overloaded, or has
// chosen the transaction as the victim of a conflict.
func isTransient(err error) bool {
	var connect *pgconn.ConnectError
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code[:2] {
		case "08", "40", "53", "57": // connection, rollback, resources, operator
			return true
		}
	}
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func write(w http.ResponseWriter, contentType string, status int, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}

func writeProblem(w http.ResponseWriter, p problem) {
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	write(w, "application/problem+json", p.Status, p)
}

// problemWriter turns the plain text of http.ServeMux's own responses into problem documents.
type problemWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *problemWriter) WriteHeader(status int) {
	w.status = status
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *problemWriter) Write(b []byte) (int, error) {
	if w.status < http.StatusBadRequest {
		return w.ResponseWriter.Write(b)
	}
	detail := noSuchPath
	if allowed := w.Header().Get("Allow"); allowed != "" {
		detail = "want one of the methods " + allowed
	}
	writeProblem(w.ResponseWriter, newProblem(w.status, detail))
	return len(b), nil
}
