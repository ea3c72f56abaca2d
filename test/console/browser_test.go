package console_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// chromium returns the path of a Chromium. The test is skipped where there is none, and fails there if CI is set.
func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no chromium is installed")
	}
	t.Skip("no chromium is installed")
	return ""
}

// browser starts a Chromium and returns the context of its tab.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("font-render-hinting", "none"), chromedp.WSURLReadTimeout(60*time.Second))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// tab is a tab with what went wrong in it: errors of the console, and violations of the Content-Security-Policy.
type tab struct {
	context.Context
	t  *testing.T
	mu sync.Mutex

	problems []string
}

func newTab(t *testing.T) *tab {
	t.Helper()
	ctx := browser(t)
	b := &tab{Context: ctx, t: t}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded:
			b.problem("log: %s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		case *runtime.EventExceptionThrown:
			b.problem("exception: %s", e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			b.problem("console: %s", e.Type)
		case *page.EventJavascriptDialogOpening:
			b.problem("dialog: %s", e.Message)
		}
	})
	if err := chromedp.Run(ctx, log.Enable(), runtime.Enable()); err != nil { // the tab lives as long as the context of the first call
		t.Fatal(err)
	}
	return b
}

func (b *tab) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// clean fails if something went wrong since the last call.
func (b *tab) clean(what string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("%s: %s", what, p)
	}
	b.problems = nil
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, 20*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// look sets the width and the scheme of colours.
func (b *tab) look(width int64, scheme string) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(width, 900), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// viewers are the people of the tests.
func authorize(r *http.Request) (console.Viewer, error) {
	return console.Viewer{Name: "ann", Bodies: true, Actions: console.AllActions()}, nil
}

type site struct {
	*httptest.Server
	service *testconsole.Service
	gap     string // the id of an event that waits for its predecessor
	large   string // the id of a rejected event
	failed  string // the number of a waiting event that has failed
}

func newSite(t *testing.T) *site {
	t.Helper()
	service, other := testconsole.New(t, "shop"), testconsole.New(t, "bank")
	service.Sagas = testconsole.Graphs()
	gap := service.Gap(t)
	large, failed := service.Reject(t, "order", 3), service.Wait(t, "o3", "failed", "no such article 4711")
	service.Wait(t, "o6", "expired", "")
	service.Letters(t, 3)
	service.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision, finished_at) SELECT 'order', 'c' || n, 2, 'cancelled', '{}', 2, now() FROM generate_series(1, 5) n`)
	service.Exec(t, `UPDATE outbox SET cause = (SELECT cause_id FROM saga_history WHERE key = '4711' AND revision = 2), cause_consumer = 'order' WHERE id = $1`, service.Owed)
	service.Exec(t, `UPDATE parked SET body = '\xff00' WHERE event_id = $1`, service.Loose) // which a browser can't edit
	service.Exec(t, `UPDATE parked SET headers = '{"tenant":"acme"}' WHERE event_id = $1`, service.Poison)
	service.Exec(t, `UPDATE parked SET headers = '{"CE_region":"north"}' WHERE event_id = $1`, service.Loose)
	service.Exec(t, `UPDATE outbox SET headers = '{"CE_region":"north"}' WHERE id = $1`, service.Loose)
	s := start(t, service, other)
	s.gap, s.large, s.failed = gap.String(), large.String(), failed
	for _, form := range []string{"doctor", "reconciliation"} { // so that their pages have something to show
		answer, err := http.PostForm(s.URL+"/ops/"+form, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	return s
}

// start serves a console of services.
func start(t *testing.T, services ...*testconsole.Service) *site {
	t.Helper()
	service := services[0]
	d, err := doctor.New(doctor.Config{Databases: []doctor.Database{
		{Pool: service.Pool, Schemas: []string{service.Schema}},
		{Name: "the same without rights", Pool: testdb.As(t, service.Pool, testdb.Role(t)), Schemas: []string{service.Schema}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := testconsole.Start(t, console.Config{
		Authorize: authorize, Prefix: "/ops", Doctor: d, Reconcile: operate.ReconcileConfig{Grace: 30 * time.Second}, Broker: queues{},
	}, services...)
	mux := http.NewServeMux()
	mux.Handle("/ops/", c)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &site{Server: server, service: service}
}

// queues is a broker of which the group mailing has not read all.
type queues struct{ broker.Inspector }

func (queues) QueuePositions(_ context.Context, group, _ string) ([]broker.QueuePosition, error) {
	list := []broker.QueuePosition{{Broker: "broker-a", Queue: 0, End: 120, Committed: 120}, {Broker: "broker-a", Queue: 1, End: 80, Committed: 80}}
	if group == "mailing" {
		list[1].Committed, list[1].Unread = 71, time.Now().Add(-3*time.Second)
	}
	return list, nil
}

func (queues) FindMessages(context.Context, string, string, time.Time, time.Time) ([]broker.StoredMessage, error) {
	return nil, nil
}

// pages are the pages, by names for files.
func (s *site) pages() map[string]string {
	p, l := s.service.Poison.String(), s.service.Loose.String()
	return map[string]string{
		"overview": "", "events": "events", "event": "why?id=" + p, "hostile": "why?id=" + l, "key": "why?id=4711", "dead": "dead?service=order",
		"letter": "letter?service=order&consumer=billing&event=" + l, "streams": "streams", "sagas": "sagas", "saga": "saga?service=order&name=order&key=o3",
		"timeouts": "timeouts", "consumers": "consumers", "doctor": "doctor", "reconciliation": "reconciliation", "audit": "audit",
		"confirm": "act/discard?service=order&consumer=billing&event=" + p, "retry": "act/retry?service=order&consumer=mailing",
		"edit": "act/edit?service=order&consumer=billing&event=" + p, "cannot": "act/edit?service=order&consumer=billing&event=" + l,
		"gap": "act/accept-gap?service=order&consumer=billing&event=" + s.gap, "missing": "why?id=nothing-has-this",
		"rejected": "rejected?service=order", "redirect": "act/redirect-rejected?service=order&topic=order", "discard-one": "act/discard-rejected?service=order&event=" + s.large,
		"waiting": "waiting?service=order", "retry-waiting": "act/retry-waiting?service=order&waiting=" + s.failed, "apply": "act/apply-event?service=order&saga=order&key=o3",
		"waits": "saga?service=order&name=order&key=o6", "out": "saga?service=order&name=order&key=4711",
		"group": "streams?service=order&consumer=billing&topic=orders&type=order.changed",
	}
}

// Each page at each width and in each scheme: no error, no violation of the policy, nothing that is wider than the window, and nothing that
// keeps people out.
func TestPagesInABrowser(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	axe := axeScript(t)
	poll.Within(t, 30*time.Second, "the broker was asked what is unread", func() bool {
		answer, err := http.Get(s.URL + "/ops/consumers")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return err == nil && strings.Contains(string(text), "not read to the end")
	})
	for name, address := range s.pages() {
		b.inAllLooks(name, s.URL+"/ops/"+address, axe, name == "missing") // whose status is 404
	}
}

// inAllLooks opens a page in each scheme of colours and at each width: no error, no violation of the policy, nothing that is wider than the
// window, and nothing that keeps people out. An error of loading is none if refused is true.
func (b *tab) inAllLooks(name, address, axe string, refused bool) {
	t := b.t
	t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 390} {
			what := fmt.Sprintf("%s, %s, %d wide", name, scheme, width)
			b.look(width, scheme)
			var tooWide int
			var ground string
			b.run(chromedp.Navigate(address), chromedp.WaitReady("main h1"),
				chromedp.Evaluate(`document.documentElement.scrollWidth - document.documentElement.clientWidth`, &tooWide),
				chromedp.Evaluate(`getComputedStyle(document.body).backgroundColor`, &ground))
			if tooWide > 0 {
				t.Errorf("%s: %d pixels are beyond the window", what, tooWide)
			}
			if light := ground == "rgb(255, 255, 255)"; light != (scheme == "light") {
				t.Errorf("%s: the ground is %s", what, ground)
			}
			if refused {
				b.problems = nil
			}
			b.clean(what)
			for _, found := range checkAccess(b, axe) {
				t.Errorf("%s: %s", what, found)
			}
			if width == 1280 || name == "overview" {
				screenshot(b, fmt.Sprintf("%s-%s-%d.png", name, scheme, width))
			}
		}
	}
}

// Each action is done by clicking: its page leads to its form, which is as accessible as a page, and what the form says happens.
func TestActionsInABrowser(t *testing.T) {
	service := testconsole.New(t, "shop")
	service.Sagas = testconsole.Graphs()
	acts := service.Acts(t)
	s := start(t, service)
	b := newTab(t)
	axe := axeScript(t)
	for _, a := range acts {
		b.inAllLooks(string(a.Action), s.URL+"/ops/"+a.Form(), axe, false)
		b.look(1280, "light")
		if done := service.Value(t, a.Done); done != "false" {
			t.Errorf("%s is done before", a.Action)
		}
		b.run(chromedp.Navigate(s.URL+"/ops/"+a.Page), chromedp.WaitReady("main h1"),
			chromedp.Click(`main a[href="/ops/`+a.Form()+`"]`), chromedp.WaitReady("form.confirm"))
		for name, value := range a.Fill {
			b.run(chromedp.SetValue(`form.confirm [name="`+name+`"]`, value))
		}
		b.run(chromedp.SendKeys("#reason", "it was agreed with the customer"), chromedp.Click("form.confirm button"), chromedp.WaitReady(".done"))
		if done := service.Value(t, a.Done); done != "true" {
			t.Errorf("%s is not done", a.Action)
		}
		b.clean(string(a.Action))
	}
	for page, result := range map[string]string{"doctor": "section.finding", "reconciliation": "main table"} {
		b.run(chromedp.Navigate(s.URL+"/ops/"+page), chromedp.WaitReady("main h1"), chromedp.WaitNotPresent(result),
			chromedp.Click(`main form[method="post"] button`), chromedp.WaitReady(result))
		b.clean(page)
	}
	done := map[console.Action]bool{console.Examine: true, console.Reconcile: true}
	for _, a := range acts {
		done[a.Action] = true
	}
	for _, a := range console.AllActions() {
		if !done[a] {
			t.Errorf("%s was not done", a)
		}
	}
}

// screenshot writes a picture to the folder that ROCKETFLOW_SCREENSHOTS names.
func screenshot(b *tab, file string) {
	b.t.Helper()
	folder := os.Getenv("ROCKETFLOW_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture []byte
	b.run(chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(folder, file), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
	if name, is := documented[file]; is {
		if err := os.WriteFile(filepath.Join(folder, name), b.cut(picture), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// documented are the pictures of docs/console, by the names of the others.
var documented = map[string]string{
	"overview-light-1280.png": "overview.png", "event-dark-1280.png": "event.png", "edit-light-1280.png": "edit.png", "sagas-light-1280.png": "saga.png",
	"apply-light-1280.png": "apply.png",
}

// cut returns the upper part of a picture, with as many colours as a small file has.
func (b *tab) cut(picture []byte) []byte {
	b.t.Helper()
	const most = 1240
	full, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		b.t.Fatal(err)
	}
	part := full.Bounds()
	part.Max.Y = min(part.Max.Y, most)
	seen := map[color.Color]int{}
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			seen[full.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(seen), func(a, b color.Color) int { return cmp.Compare(seen[b], seen[a]) })
	small := image.NewPaletted(part, colours[:min(len(colours), 256)])
	draw.Draw(small, part, full, part.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		b.t.Fatal(err)
	}
	return out.Bytes()
}

// press moves the focus by the keyboard to the element with a text, or without one an id.
func (b *tab) press(until string) {
	b.t.Helper()
	for range 90 {
		var now string
		var outlined bool
		b.run(chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(`(document.activeElement.tagName === "TEXTAREA" ? document.activeElement.id : document.activeElement.textContent || document.activeElement.id).trim()`, &now),
			chromedp.Evaluate(`getComputedStyle(document.activeElement).outlineStyle !== "none"`, &outlined))
		if !outlined {
			b.t.Errorf("the focus on %q can't be seen", now)
		}
		if now == until {
			return
		}
	}
	b.t.Fatalf("no %q is reached by the keyboard", until)
}

// A dead letter is edited by the keyboard alone: what the browser doesn't change stays as it was, byte by byte.
func TestEditByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	before := "\n\n{\"note\": \"</textarea> &amp; <b>猫</b>\",\n\t\"article\": 471}\n\n"
	s.service.Exec(t, "UPDATE parked SET body = $2 WHERE event_id = $1", s.service.Poison, []byte(before))
	b.run(chromedp.Navigate(s.URL+"/ops/letter?service=order&consumer=billing&event="+s.service.Poison.String()), chromedp.WaitReady("main h1"))
	b.press("Edit and retry…")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("form.confirm"))
	b.press("body")
	b.run(chromedp.KeyEvent(kb.End, chromedp.KeyModifiers(input.ModifierCtrl)), chromedp.KeyEvent(" "))
	b.press("reason")
	b.run(chromedp.KeyEvent("it has another number"))
	b.press("Edit and retry 1 dead letter")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(".done"))
	if got := s.service.Value(t, "SELECT reason || convert_from(body, 'UTF8') FROM parked WHERE event_id = $1", s.service.Poison); got != "retry"+before+" " {
		t.Errorf("it is %q", got)
	}
	b.clean("edit")
}

// A gap is accepted by the keyboard alone.
func TestAcceptGapByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(390, "dark")
	b.run(chromedp.Navigate(s.URL+"/ops/streams"), chromedp.WaitReady("main h1"))
	b.press("Accept the gap…")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("form.confirm"))
	b.press("reason")
	b.run(chromedp.KeyEvent("the old service is gone"))
	b.press("Accept the gap")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(".done"))
	if reason := s.service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", s.gap); reason != "retry" {
		t.Errorf("it is %s", reason)
	}
	b.clean("gap")
}

// Rejected events are redirected by the keyboard alone.
func TestRedirectByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(390, "dark")
	b.run(chromedp.Navigate(s.URL+"/ops/rejected?service=order&topic=order"), chromedp.WaitReady("main h1"))
	b.press("Redirect all that match…")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("form.confirm"))
	b.press("to")
	b.run(chromedp.KeyEvent("orders"))
	b.press("reason")
	b.run(chromedp.KeyEvent("the topic has another name"))
	b.press("Redirect 3 rejected events")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(".done"))
	if n := s.service.Value(t, "SELECT count(*) FROM outbox WHERE topic = 'orders' AND subject LIKE 'r%' AND type = 'order.changed'"); n != "3" {
		t.Errorf("%s have the new topic", n)
	}
	b.clean("redirect")
}

// An event is applied to a saga by the keyboard alone: one that the definition names is chosen.
func TestApplyByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	b.run(chromedp.Navigate(s.URL+"/ops/saga?service=order&name=order&key=o3"), chromedp.WaitReady("main h1"))
	b.press("Apply an event…")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("form.confirm"))
	b.press("Choose")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(`#type[value="order.changed"]`))
	b.press("body")
	b.run(chromedp.KeyEvent(`{"cents": 7}`))
	b.press("reason")
	b.run(chromedp.KeyEvent("the shop has lost it"))
	b.press("Apply the event")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(".done"))
	if got := s.service.Value(t, "SELECT type || ' ' || convert_from(body, 'UTF8') FROM saga_waiting WHERE key = 'o3' AND status = 'waiting'"); got != `order.changed {"cents": 7}` {
		t.Errorf("it is %q", got)
	}
	b.clean("apply")
}

// Waiting events are discarded, and an event is applied, without JavaScript.
func TestSagasWithoutJavaScript(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(390, "light")
	b.run(emulation.SetScriptExecutionDisabled(true))
	b.run(chromedp.Navigate(s.URL+"/ops/act/discard-waiting?service=order&status=failed"), chromedp.WaitReady("form.confirm"),
		chromedp.SendKeys("#reason", "nobody needs it"), chromedp.Click("form.confirm button"), chromedp.WaitReady(".done"))
	if left := s.service.Value(t, "SELECT string_agg(status, ' ') FROM saga_waiting"); left != "expired" {
		t.Errorf("%s are left", left)
	}
	b.run(chromedp.Navigate(s.URL+"/ops/act/apply-event?service=order&saga=order&key=o3&topic=payments&type=payment.received"), chromedp.WaitReady("form.confirm"),
		chromedp.SendKeys("#body", "{}"), chromedp.SendKeys("#reason", "the bank has lost it"), chromedp.Click("form.confirm button"), chromedp.WaitReady(".done"))
	if n := s.service.Value(t, "SELECT count(*) FROM saga_waiting WHERE key = 'o3'"); n != "1" {
		t.Errorf("%s events wait", n)
	}
	b.clean("sagas without JavaScript")
}

// Dead letters are retried at a rate, without JavaScript.
func TestRetryAtARate(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(390, "light")
	b.run(emulation.SetScriptExecutionDisabled(true))
	b.run(chromedp.Navigate(s.URL+"/ops/act/retry?service=order&consumer=mailing"), chromedp.WaitReady("form.confirm"),
		chromedp.SendKeys("#reason", "the mailboxes are bigger"), chromedp.Click("#first"), chromedp.SendKeys("#rate", "20"), chromedp.Click("form.confirm button"), chromedp.WaitReady(".done"))
	if n := s.service.Value(t, "SELECT count(*) FROM parked WHERE consumer = 'mailing' AND reason = 'retry'"); n != "3" {
		t.Errorf("%s were retried", n)
	}
	b.clean("rate")
}

// The graph of a saga is an image with a name, is as large as it says, and each of its texts is within its box.
func TestGraphInABrowser(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	var role, label string
	var outside []string
	b.run(chromedp.Navigate(s.URL+"/ops/sagas"), chromedp.WaitReady("svg.graph"),
		chromedp.Evaluate(`document.querySelector("svg.graph").getAttribute("role")`, &role),
		chromedp.Evaluate(`document.querySelector("svg.graph").getAttribute("aria-label")`, &label),
		chromedp.Evaluate(`[...document.querySelectorAll("svg.graph .node")].flatMap(node => {
			const box = node.querySelector("rect").getBoundingClientRect();
			return [...node.querySelectorAll("text")].filter(text => {
				const r = text.getBoundingClientRect();
				return r.left < box.left || r.right > box.right || r.top < box.top || r.bottom > box.bottom;
			}).map(text => text.textContent);
		})`, &outside))
	if role != "img" || !strings.Contains(label, "Graph of saga order: 5 states") {
		t.Errorf("%s: %s", role, label)
	}
	if len(outside) > 0 {
		t.Errorf("outside of their boxes: %q", outside)
	}
	b.clean("graph")
}

// A dead letter is found and retried by the keyboard alone.
func TestRetryByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	b.run(chromedp.Navigate(s.URL+"/ops/letter?service=order&consumer=billing&event="+s.service.Poison.String()), chromedp.WaitReady("main h1"))
	b.press("Retry…")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("form.confirm"))
	b.press("reason")
	b.run(chromedp.KeyEvent("the article is there now"))
	b.press("Retry 1 dead letter")
	b.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(".done"))
	if reason := s.service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", s.service.Poison); reason != "retry" {
		t.Errorf("it is %s", reason)
	}
	b.clean("retry")
}

// A live page shows what changes, and doesn't while it is paused.
func TestLivePage(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	shown := func(text string) {
		t.Helper()
		b.run(chromedp.Poll(`[...document.querySelectorAll(".figures b")].some(b => b.textContent === "`+text+`")`, nil, chromedp.WithPollingInterval(200*time.Millisecond)))
	}
	b.run(chromedp.Navigate(s.URL+"/ops/"), chromedp.WaitReady("main h1"), chromedp.WaitVisible(".liveness"))
	s.service.Letters(t, 37)
	shown("42")
	// Count how often the page thinks of its refresh, every 2 s.
	b.run(chromedp.Evaluate(`window.turns = 0;
		const original = window.setTimeout;
		window.setTimeout = (fn, ms, ...more) => { if (ms === 2000) window.turns++; return original(fn, ms, ...more); };
		document.querySelector("[data-toggle-live]").click();
		window.turns = 0;
		document.querySelector("main h1").dataset.mark = "kept"`, nil))
	s.service.Letters(t, 6)
	var kept string
	b.run(chromedp.Poll(`window.turns >= 2`, nil, chromedp.WithPollingInterval(100*time.Millisecond)),
		chromedp.Evaluate(`document.querySelector("main h1").dataset.mark || ""`, &kept))
	if kept != "kept" {
		t.Error("a paused page was replaced")
	}
	b.run(chromedp.Click("[data-toggle-live]"), chromedp.Evaluate(`document.activeElement.blur()`, nil))
	shown("48")
	b.clean("live")
}

// Everything works with JavaScript off.
func TestWithoutJavaScript(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.look(1280, "light")
	b.run(emulation.SetScriptExecutionDisabled(true))
	b.run(chromedp.Navigate(s.URL+"/ops/"), chromedp.WaitReady("main h1"), chromedp.SendKeys("#find", s.service.Loose.String()+kb.Enter), chromedp.WaitReady(".verdict"))
	address := url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {s.service.Loose.String()}}
	b.run(chromedp.Navigate(s.URL+"/ops/act/discard?"+address.Encode()), chromedp.WaitReady("form.confirm"),
		chromedp.SendKeys("#reason", "it was a test"), chromedp.Click("form.confirm button"), chromedp.WaitReady(".done"))
	if n := s.service.Value(t, "SELECT count(*) FROM parked WHERE event_id = $1", s.service.Loose); n != "0" {
		t.Error("it was not discarded")
	}
	b.run(chromedp.WaitNotVisible(".liveness"))
	b.clean("without JavaScript")
}

// Text of events runs nothing, also where the page would let it: the policy stops what escaping should have stopped before.
func TestPolicyStopsInlineCode(t *testing.T) {
	s := newSite(t)
	b := newTab(t)
	b.run(chromedp.Navigate(s.URL+"/ops/"), chromedp.WaitReady("main h1"))
	b.clean("overview")
	var ran bool
	b.run(network.Enable(), chromedp.Evaluate(`const s = document.createElement("script"); s.textContent = "window.ran = true"; document.body.append(s); window.ran === true`, &ran))
	if ran {
		t.Error("an inline script ran")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.problems) == 0 || !strings.Contains(strings.Join(b.problems, " "), "Content Security Policy") {
		t.Errorf("the violation was not reported: %v", b.problems)
	}
}
