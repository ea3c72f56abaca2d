package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

func serve(t *testing.T, h Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	mux := NewMux(slog.New(slog.DiscardHandler))
	mux.Handle("POST /thing", h)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type is %q", got)
	}
	return w
}

func TestErrorsAreProblemDocuments(t *testing.T) {
	t.Parallel()
	failing := func(err error) Handler {
		return func(*http.Request) (int, any, error) { return 0, nil, fmt.Errorf("do: %w", err) }
	}
	for _, c := range []struct {
		name, method, path string
		handler            Handler
		status             int
		body               string
	}{
		{"field", "POST", "/thing", failing(BadField("sku", "no")), 400, `{"title":"Bad Request","status":400,"detail":"sku: no","field":"sku"}`},
		{"conflict", "POST", "/thing", failing(Conflict("no")), 409, `{"title":"Conflict","status":409,"detail":"no"}`},
		{"back-pressure", "POST", "/thing", failing(rocketflow.ErrBackpressure), 503, `{"title":"Service Unavailable","status":503,"detail":"too many events wait for the broker: try again later"}`},
		{"deadlock", "POST", "/thing", failing(&pgconn.PgError{Code: "40P01"}), 503, `{"title":"Service Unavailable","status":503,"detail":"the database can't serve: try again later"}`},
		{"lost connection", "POST", "/thing", failing(io.ErrUnexpectedEOF), 503, `{"title":"Service Unavailable","status":503,"detail":"the database can't serve: try again later"}`},
		{"our fault", "POST", "/thing", failing(errors.New("secret")), 500, `{"title":"Internal Server Error","status":500,"detail":"internal error"}`},
		{"panic", "POST", "/thing", func(*http.Request) (int, any, error) { panic("secret") }, 500, `{"title":"Internal Server Error","status":500,"detail":"internal error"}`},
		{"unknown path", "POST", "/other", failing(nil), 404, `{"title":"Not Found","status":404,"detail":"no such path"}`},
		{"unknown method", "PUT", "/thing", failing(nil), 405, `{"title":"Method Not Allowed","status":405,"detail":"want one of the methods POST"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := serve(t, c.handler, c.method, c.path, "")
			if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || got != c.body {
				t.Errorf("response is %d %s, want %d %s", w.Code, got, c.status, c.body)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	type thing struct {
		Size int64 `json:"size"`
	}
	for body, field := range map[string]string{
		`{"size":1}`:            "",
		` {"size":1} ` + "\n":   "",
		`{"size":"1"}`:          "size",
		`{"size":1.5}`:          "size",
		`{"size":1e99}`:         "size",
		`{"size":1,"colour":1}`: "colour",
		`{"size":1}{}`:          "body",
		`{"size":1`:             "body",
		`[1]`:                   "body",
		``:                      "body",
		`null`:                  "body",
		`"size"`:                "body",
	} {
		v, err := Decode[thing](httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body)))
		var bad *Error
		switch {
		case field == "" && (err != nil || v.Size != 1):
			t.Errorf("%.40q: %+v, %v", body, v, err)
		case field != "" && (!errors.As(err, &bad) || bad.Field != field || bad.Status != http.StatusBadRequest):
			t.Errorf("%.40q: error is %v, want 400 that names %s", body, err, field)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"size":1}`)
	f.Add(`{"size":1,"colour":[]}`)
	f.Fuzz(func(t *testing.T, body string) {
		_, err := Decode[struct {
			Size int64 `json:"size"`
		}](httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body)))
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || bad.Field == "") {
			t.Errorf("%q: error names no field: %v", body, err)
		}
	})
}
