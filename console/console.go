package console

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/operate"
)

//go:embed templates static
var files embed.FS

// Console is a web console. It is an http.Handler. Its methods are safe for concurrent use.
type Console struct {
	config  Config
	system  *operate.System
	handler http.Handler
	origins *http.CrossOriginProtection
	pages   map[string]*template.Template

	work    background.Group
	watches []*watch     // in the order of Config.Services
	seen    atomic.Int64 // when somebody last looked at what they read, in Unix nanoseconds
	lags    atomic.Pointer[lags]
	reads   shared

	examining   sync.Mutex // while the doctor examines on demand
	examined    atomic.Pointer[doctor.Report]
	reconciling sync.Mutex // while a reconciliation runs
	reconciled  atomic.Pointer[reconciled]
}

// reconciled is the result of a reconciliation.
type reconciled struct {
	result *operate.Reconciliation
	err    error
	at     time.Time
	by     string
}

// New returns a Console that isn't started. It connects to nothing. An error is a *rocketflow.FieldError.
func New(c Config) (*Console, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	system := operate.SystemConfig{Unread: c.Unread, Broker: c.Broker}
	for _, s := range c.Services {
		system.Operators = append(system.Operators, s.Operator)
	}
	y, err := operate.NewSystem(system)
	if err != nil {
		return nil, err
	}
	x := &Console{config: c, system: y, origins: http.NewCrossOriginProtection(), reads: shared{byKey: map[string]*sharedRead{}}}
	for _, origin := range c.TrustedOrigins {
		if err := x.origins.AddTrustedOrigin(origin); err != nil {
			return nil, valid.Fieldf("console.Config.TrustedOrigins", "%v", err)
		}
	}
	for _, s := range c.Services {
		x.watches = append(x.watches, &watch{service: s, wake: make(chan struct{}, 1)})
	}
	x.pages = parsePages(c.Prefix)
	x.handler = x.protected(x.authorized(x.routes()))
	return x, nil
}

// Start begins to read the overview of the services, which the pages need. Starting a started Console does nothing.
func (c *Console) Start(ctx context.Context) error {
	return c.work.Start(ctx, func(context.Context) error {
		for _, w := range c.watches {
			c.work.Go(func(ctx context.Context) {
				background.Loop{Clock: clock.System{}, Wake: w.wake}.Run(ctx, func(ctx context.Context) time.Duration { return c.refresh(ctx, w) })
			})
		}
		if c.config.Broker != nil {
			c.work.Go(func(ctx context.Context) { background.Loop{Clock: clock.System{}}.Every(ctx, lagPause, c.askLags) })
		}
		return nil
	})
}

// Stop ends the reading, and waits for its end until ctx ends. Requests are refused then; those that are being answered go on.
func (c *Console) Stop(ctx context.Context) error {
	err := c.work.Stop(ctx)
	for _, w := range c.watches {
		w.newest.Store(nil)
	}
	return err
}

// ServeHTTP answers a request whose path begins with Config.Prefix. Before Start and after Stop it answers with status 503.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !c.work.Running() {
		http.Error(w, "The console is not started.", http.StatusServiceUnavailable)
		return
	}
	c.handler.ServeHTTP(w, r)
}

func (c *Console) routes() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, page func(*request) error) {
		mux.HandleFunc("GET "+c.config.Prefix+path, func(w http.ResponseWriter, r *http.Request) { c.answer(w, r, page) })
	}
	post := func(path string, action func(*request) error) {
		mux.HandleFunc("POST "+c.config.Prefix+path, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			c.answer(w, r, action)
		})
	}
	get("/{$}", (*request).overviewPage)
	get("/events", (*request).eventsPage)
	get("/why", (*request).whyPage)
	get("/rejected", (*request).rejectedPage)
	get("/dead", (*request).deadPage)
	get("/letter", (*request).letterPage)
	get("/streams", (*request).streamsPage)
	get("/sagas", (*request).sagasPage)
	get("/saga", (*request).sagaPage)
	get("/waiting", (*request).waitingPage)
	get("/timeouts", (*request).timeoutsPage)
	get("/consumers", (*request).consumersPage)
	get("/doctor", (*request).doctorPage)
	get("/reconciliation", (*request).reconciliationPage)
	get("/audit", (*request).auditPage)
	get("/act/{action}", (*request).confirmPage)
	post("/act/{action}", (*request).act)
	post("/doctor", (*request).examine)
	post("/reconciliation", (*request).reconcile)
	if c.config.Prefix != "" {
		mux.Handle("GET "+c.config.Prefix, http.RedirectHandler(c.config.Prefix+"/", http.StatusMovedPermanently))
	}
	static, _ := fs.Sub(files, "static") // it exists
	serve := http.StripPrefix(c.config.Prefix+"/static/", http.FileServerFS(static))
	mux.HandleFunc("GET "+c.config.Prefix+"/static/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") { // no list of the files
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "private, max-age=300")
		serve.ServeHTTP(w, r)
	})
	return mux
}

// maxForm bounds the body of a request, in bytes: an edited body and headers, each byte of which may take three, and the other fields.
const maxForm = 3*(maxBody+rocketflow.MaxHeaders) + 64<<10

const (
	pageTimeout   = 15 * time.Second // of what a page reads
	actionTimeout = 2 * time.Minute  // of an action, an examination and a reconciliation
)

// answer calls a page and answers its error.
func (c *Console) answer(w http.ResponseWriter, r *http.Request, page func(*request) error) {
	timeout := pageTimeout
	if r.Method == http.MethodPost {
		timeout = actionTimeout
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	q := &request{Console: c, w: w, r: r.WithContext(ctx), viewer: viewerOf(r.Context())}
	err := page(q)
	var refused *refusal
	switch {
	case err == nil:
	case errors.As(err, &refused):
		q.show(refused.status, "message", "", messagePage{Title: refused.title, Text: refused.text})
	case ctx.Err() != nil && r.Context().Err() != nil: // nobody waits for the answer
	default:
		c.config.Logger.Warn("a page of the console failed", "path", r.URL.Path, "error", err)
		q.show(http.StatusInternalServerError, "message", "", messagePage{Title: "This could not be read", Text: err.Error()})
	}
}

// refusal is the error of a request that can't be answered as it is.
type refusal struct {
	status      int
	title, text string
}

func (e *refusal) Error() string { return e.title }

func refuse(status int, title, text string) error { return &refusal{status, title, text} }

// messagePage says one thing.
type messagePage struct{ Title, Text string }
