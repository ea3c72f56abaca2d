// Package servicetest runs the examples in tests: the order and the payment service in the test's process (Env), any
// example's main as a process of its own (Program), and HTTP clients for both.
package servicetest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/examples/service"
	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Env is what services of one test share: servers, and names that no other test uses.
type Env struct {
	t                       testing.TB
	databaseURL, nameServer string
	run                     string
	world                   *rocketflowtest.Env // nil: real servers
}

// New returns an Env on the servers that run already. What its services create in Postgres goes when the test ends.
func New(t testing.TB) *Env { return On(t, testdb.URL(t), os.Getenv("ROCKETMQ_NAMESRV")) }

// On is New on servers of the caller's choice.
func On(t testing.TB, databaseURL, nameServer string) *Env {
	return &Env{t: t, databaseURL: databaseURL, nameServer: nameServer, run: "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]}
}

// In is New in a rocketflowtest.Env, whose clock the test can move.
func In(t testing.TB, w *rocketflowtest.Env) *Env {
	return On(t, w.DatabaseURL(), w.Broker().Addr()).In(w)
}

// In makes the services run in a rocketflowtest.Env, which uses the Env's servers.
func (e *Env) In(w *rocketflowtest.Env) *Env {
	e.world = w
	return e
}

// Start runs a service until the test ends.
func (e *Env) Start(configure func(func(string) string) (service.Config, error), app func(service.Config) fx.Option) *Client {
	e.t.Helper()
	config := e.configure(configure)
	var server *service.Server
	options := e.options(app(config), fx.Populate(&server))
	if e.world != nil {
		e.world.Run(options)
		return &Client{e.t, "http://" + server.Address(), config}
	}
	running := fx.New(options, fx.NopLogger)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := running.Start(ctx); err != nil {
		e.t.Fatalf("start service: %v", err)
	}
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := running.Stop(ctx); err != nil {
			e.t.Errorf("stop service: %v", err)
		}
	})
	return &Client{e.t, "http://" + server.Address(), config}
}

// Run runs a service in the rocketflowtest.Env of In, for tests that stop it and run it again. Options are added to the service's.
func (e *Env) Run(configure func(func(string) string) (service.Config, error), app func(service.Config) fx.Option, options ...fx.Option) (*rocketflowtest.Service, service.Config) {
	e.t.Helper()
	config := e.configure(configure)
	return e.world.Run(e.options(append(options, app(config))...)), config
}

// configure gives a service its settings, with schemas that go when the test ends.
func (e *Env) configure(configure func(func(string) string) (service.Config, error)) service.Config {
	e.t.Helper()
	env := map[string]string{
		"DATABASE_URL":             e.databaseURL,
		"ROCKETMQ_NAMESRV":         e.nameServer,
		"ROCKETMQ_NAMESPACE":       e.run,
		"ROCKETFLOW_CREATE_TOPICS": "1",
		"LISTEN_ADDR":              "127.0.0.1:0",
	}
	config, err := configure(func(name string) string { return env[name] })
	if err != nil {
		e.t.Fatalf("%v: run `make test`, or start servers with `make dev` and export the two variables that it prints", err)
	}
	config.Tables = e.run + "_" + config.Tables
	config.Schema = e.run + "_" + config.Schema
	e.t.Cleanup(func() { e.drop(config.Tables, config.Schema) })
	return config
}

// options are the service's, with a log that is the test's.
func (e *Env) options(options ...fx.Option) fx.Option {
	log := slog.New(slog.NewTextHandler(e.t.Output(), nil))
	return fx.Options(fx.Supply(log), fx.Options(options...))
}

func (e *Env) drop(schemas ...string) {
	if err := pgschema.Drop(context.Background(), e.databaseURL, schemas...); err != nil {
		e.t.Error(err)
	}
}

// Client sends requests to one service.
type Client struct {
	t      testing.TB
	URL    string
	Config service.Config // that it runs with
}

// Response is an HTTP response.
type Response struct {
	Status int
	Type   string // content type
	Text   string
	JSON   map[string]any // nil unless Text is an object
}

// Do sends a request. A body that is a string goes as it is, any other as JSON.
func (c *Client) Do(method, path string, body any) Response {
	c.t.Helper()
	return c.do(method, path, "application/json", body)
}

// WantContentType is Want with a content type that is said of the body.
func (c *Client) WantContentType(status int, method, path, contentType string, body any) {
	c.t.Helper()
	if a := c.do(method, path, contentType, body); a.Status != status {
		c.t.Errorf("%s %s as %s: %d %s, want %d", method, path, contentType, a.Status, a.Text, status)
	}
}

func (c *Client) do(method, path, contentType string, body any) Response {
	c.t.Helper()
	var raw []byte
	switch body := body.(type) {
	case nil:
	case string:
		raw = []byte(body)
	default:
		var err error
		if raw, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.URL+path, bytes.NewReader(raw))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := Response{Status: response.StatusCode, Type: response.Header.Get("Content-Type"), Text: string(text)}
	_ = json.Unmarshal(text, &a.JSON) // nil if it is none
	return a
}

// Want sends a request, and fails the test unless the response has a status.
func (c *Client) Want(status int, method, path string, body any) Response {
	c.t.Helper()
	a := c.Do(method, path, body)
	if a.Status != status {
		c.t.Fatalf("%s %s: %d %s, want %d", method, path, a.Status, a.Text, status)
	}
	return a
}

// WantField sends a request, and fails the test unless the response is a 400 that names a field.
func (c *Client) WantField(field, method, path string, body any) {
	c.t.Helper()
	a := c.Do(method, path, body)
	if a.Status != http.StatusBadRequest || a.JSON["field"] != field || a.JSON["detail"] == "" || a.Type != "application/problem+json" {
		c.t.Errorf("%s %s %.100v: %d %s, want 400 that names %s", method, path, body, a.Status, a.Text, field)
	}
}

var (
	documentedPath   = regexp.MustCompile(`^  (/\S*):$`)
	documentedMethod = regexp.MustCompile(`^    (get|put|post|delete|patch):$`)
	parameter        = regexp.MustCompile(`{\w+}`)
)

// WantDocumented checks that of the paths in /openapi.yaml the service serves the methods that stand there, and no others.
func (c *Client) WantDocumented() {
	c.t.Helper()
	methods := map[string][]string{}
	path := ""
	for line := range strings.Lines(c.Want(http.StatusOK, http.MethodGet, "/openapi.yaml", nil).Text) {
		line = strings.TrimSuffix(line, "\n")
		if match := documentedPath.FindStringSubmatch(line); match != nil {
			path = parameter.ReplaceAllString(match[1], uuid.NewString())
		}
		if match := documentedMethod.FindStringSubmatch(line); match != nil {
			methods[path] = append(methods[path], strings.ToUpper(match[1]))
		}
	}
	if len(methods) < 5 {
		c.t.Fatalf("only %d paths are documented", len(methods))
	}
	for path, documented := range methods {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodPatch} {
			a := c.Do(method, path, nil)
			unserved := a.Status == http.StatusMethodNotAllowed || a.JSON["detail"] == "no such path"
			if unserved == slices.Contains(documented, method) {
				c.t.Errorf("%s %s: response is %d, documented are %v", method, path, a.Status, documented)
			}
		}
	}
}

// WaitFor repeats a GET until a field of the response has a value.
func (c *Client) WaitFor(path, field string, value any) Response {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		a := c.Do(http.MethodGet, path, nil)
		if a.JSON[field] == value {
			return a
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("GET %s: %s, want %s=%v", path, a.Text, field, value)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
