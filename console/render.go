package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

// request is a request to a page.
type request struct {
	*Console
	w      http.ResponseWriter
	r      *http.Request
	viewer Viewer
}

// arg returns a parameter of the address, as text that Postgres accepts.
func (q *request) arg(name string) string { return clean(q.r.URL.Query().Get(name)) }

// clean returns text that Postgres accepts, without space around it.
func clean(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(strings.ToValidUTF8(printable.Cut(s, maxArg), ""), "\x00", ""))
}

// maxArg bounds a parameter, in bytes.
const maxArg = 8 << 10

// service returns the service that a parameter names; the first one by default.
func (q *request) service() (*Service, error) {
	name := q.arg("service")
	if name == "" {
		return &q.config.Services[0], nil
	}
	return q.serviceOf(name)
}

func (q *request) serviceOf(name string) (*Service, error) {
	for i := range q.config.Services {
		if q.config.Services[i].Name == name {
			return &q.config.Services[i], nil
		}
	}
	return nil, refuse(http.StatusNotFound, "No such service", "The console doesn't show a service "+printable.Quote(name, 100)+".")
}

// key identifies what a page reads, for read: different parts have different keys. (%q would show numbers as runes.)
func key(parts ...any) string { return fmt.Sprintf("%#v", parts) }

// layout is what all pages have.
type layout struct {
	Viewer   Viewer
	Menu     []menuEntry
	Page     string // the name of its template
	Live     int    // seconds between two refreshes of a page; 0: it isn't refreshed
	Title    string
	Services []Service
	Unread   []operate.UnreadSchema
	Now      time.Time
	Done     string // what was just done, if something was
	Data     any
}

// menuEntry is an entry of the navigation.
type menuEntry struct {
	Path, Title string
	pages       []string // the templates that belong to it
}

// Has reports whether a page belongs to the entry.
func (m menuEntry) Has(page string) bool { return slices.Contains(m.pages, page) }

var menu = []menuEntry{
	{"", "Overview", []string{"overview"}},
	{"events", "Events", []string{"events", "why"}},
	{"rejected", "Rejected", []string{"rejected"}},
	{"dead", "Dead letters", []string{"dead", "letter"}},
	{"streams", "Streams", []string{"streams"}},
	{"sagas", "Sagas", []string{"sagas", "saga"}},
	{"waiting", "Waiting", []string{"waiting"}},
	{"timeouts", "Timeouts", []string{"timeouts"}},
	{"consumers", "Consumers", []string{"consumers"}},
	{"doctor", "Doctor", []string{"doctor"}},
	{"reconciliation", "Reconciliation", []string{"reconciliation"}},
	{"audit", "Audit", []string{"audit"}},
}

// live are the pages that refresh themselves, with the seconds in between.
var live = map[string]int{"overview": 2, "rejected": 5, "dead": 5, "streams": 5, "waiting": 5, "timeouts": 5, "consumers": 5}

// show writes a page.
func (q *request) show(status int, page, title string, data any) {
	var out bytes.Buffer
	err := q.pages[page].ExecuteTemplate(&out, "layout", layout{
		Viewer: q.viewer, Menu: menu, Page: page, Live: live[page], Title: title, Services: q.config.Services, Unread: q.config.Unread, Now: time.Now(), Data: data,
		Done: done(Action(q.arg("done")), numberOf(q.arg("n")), q.arg("left") == "yes"),
	})
	if err != nil {
		q.config.Logger.Error("a page of the console can't be shown", "page", page, "error", err)
		http.Error(q.w, "This page can't be shown.", http.StatusInternalServerError)
		return
	}
	q.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	q.w.WriteHeader(status)
	_, _ = q.w.Write(out.Bytes()) // the viewer may have left
}

// done says what an action has done, and whether its time ended before all was done.
func done(a Action, n int64, left bool) string {
	k, known := kinds[a]
	var text string
	switch {
	case !known:
		return ""
	case n == 0:
		text = "Nothing was changed: somebody has done it before, or what was selected has changed."
	case n == 1:
		text = "1 " + k.thing + " " + k.done + "."
	default:
		text = plural(n, k.thing) + " " + strings.NewReplacer(" it ", " them ", " has ", " have ").Replace(k.done) + "."
	}
	if left {
		text += " That took the " + span(pacedFor) + " that an action at a rate takes at most: what is left is below."
	}
	return text
}

// parsePages parses the template of each page with those that all have.
func parsePages(prefix string) map[string]*template.Template {
	common := template.New("").Funcs(functions(prefix))
	common = template.Must(common.ParseFS(files, "templates/layout.html", "templates/parts.html"))
	pages := map[string]*template.Template{}
	list, _ := files.ReadDir("templates") // it exists
	for _, f := range list {
		if name := strings.TrimSuffix(f.Name(), ".html"); name != "layout" && name != "parts" {
			pages[name] = template.Must(template.Must(common.Clone()).ParseFS(files, path.Join("templates", f.Name())))
		}
	}
	return pages
}

// functions are for the templates.
func functions(prefix string) template.FuncMap {
	return template.FuncMap{
		// link returns the address of a page: its path and pairs of a parameter and a value, without those that are empty.
		"link":     func(page string, pairs ...any) string { return link(prefix, page, pairs...) },
		"linkList": func(list []any) string { return link(prefix, fmt.Sprint(list[0]), list[1:]...) },
		// t shows text from outside on one line.
		"t": func(s any) string { return printable.Line(fmt.Sprint(s), 300) },
		// gist is t for text with an error in it, of which what comes after the error is kept.
		"gist":       gist,
		"short":      func(s any) string { return printable.Line(fmt.Sprint(s), 80) },
		"text":       func(s string) string { return printable.Text(s, 8<<10) },
		"stamp":      func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"utc":        func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"clock":      func(t time.Time) string { return t.UTC().Format("15:04:05.000") },
		"day":        func(t time.Time) string { return t.UTC().Format("2006-01-02") },
		"away":       away,
		"span":       span,
		"count":      count,
		"capped":     capped,
		"plural":     plural,
		"word":       func(s any) string { return strings.ReplaceAll(printable.Line(fmt.Sprint(s), 80), "_", " ") },
		"stateClass": stateClass,
		"parkedFor":  parkedFor,
		"hasID":      func(id uuid.UUID) bool { return id != uuid.Nil },
		"yes": func(b bool) string {
			if b {
				return "yes"
			}
			return ""
		},
		"atMost": func(n int64, most int) int64 { return min(n, int64(most)) },
		"may":    func(v Viewer, a string) bool { return v.May(Action(a)) },
		"curve":  newCurve,
		"dict": func(pairs ...any) map[string]any {
			d := map[string]any{}
			for i := 0; i+1 < len(pairs); i += 2 {
				d[fmt.Sprint(pairs[i])] = pairs[i+1]
			}
			return d
		},
	}
}

// gist shows text from outside on one line, and leaves out the middle of a long one.
func gist(s any) string {
	const half = 300
	text := printable.Line(fmt.Sprint(s), 64<<10)
	if len(text) <= 2*half {
		return text
	}
	end := len(text) - half
	for !utf8.RuneStart(text[end]) {
		end++
	}
	return printable.Cut(text, half) + " … " + text[end:]
}

// parkedFor says why an event is parked, and what ends it.
func parkedFor(reason operate.HandlingState) string {
	switch reason {
	case operate.StateDead:
		return "Its handler failed until the last attempt, or can't handle it: it waits for an operator."
	case operate.StateRetry:
		return "Its handler failed, and is called again by itself."
	case operate.StateGap:
		return "It waits for the event before it in its stream, which is missing or not handled yet."
	case operate.StateBusy:
		return "It waits for the handler of an earlier event of its stream, which takes long."
	case operate.StateUnhandled:
		return "It waits for a process that has its handler: none has taken it yet."
	case operate.StatePaused:
		return "Its handler or its stream is paused: it waits until somebody resumes that."
	}
	return ""
}

// stateClass returns the class of a state's colour. The word says the same.
func stateClass(state any) string {
	switch fmt.Sprint(state) {
	case "ok", "done", "handled", "confirmed", "finished", "fired":
		return "good"
	case "needs action", "dead", "stopped", "lost", "failed", "expired", "rejected", "problem", "critical", "stuck", "passed", "unrecorded", "never started":
		return "bad"
	case "late", "warning", "unhandled", "gap", "owed", "paused", "refused", "settled":
		return "warn"
	}
	return "calm"
}

// link returns the address of a page.
func link(prefix, page string, pairs ...any) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := fmt.Sprint(pairs[i+1]); v != "" && v != "false" {
			values.Set(fmt.Sprint(pairs[i]), v)
		}
	}
	address := prefix + "/" + page
	if len(values) > 0 {
		address += "?" + values.Encode()
	}
	return address
}

// count shows a number with a thin space between its groups of three digits; one at operate.MaxCount, where counts end, ends with +.
func count(n any) string {
	var v int64
	switch n := n.(type) {
	case int:
		v = int64(n)
	case int64:
		v = n
	case tally:
		return n.String()
	}
	text := fmt.Sprint(v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	if v == operate.MaxCount {
		text += "+"
	}
	return text
}

// plural shows a number with what it counts.
func plural(n any, thing string) string {
	text := count(n)
	if text == "1" {
		return "1 " + thing
	}
	return text + " " + thing + "s"
}

// tally is a count of an overview, or the sum of some.
type tally struct {
	N    int64
	More bool // it is that many or more
}

// capped returns a count that ends at operate.MaxOverviewCount.
func capped(n int64) tally { return tally{n, n >= operate.MaxOverviewCount} }

// add adds a count that ends at operate.MaxOverviewCount.
func (t *tally) add(n int64) { t.N, t.More = t.N+n, t.More || capped(n).More }

// String shows the number, with + if it is that many or more.
func (t tally) String() string {
	text := count(t.N)
	if t.More && !strings.HasSuffix(text, "+") {
		text += "+"
	}
	return text
}

// away returns the distance of t from now, such as "5 m ago" or "in 3 s".
func away(now, t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + span(d)
	}
	return span(now.Sub(t)) + " ago"
}

// span returns a duration to about two digits.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 0))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// body is a body as it is shown.
type body struct {
	Text string
	Kind string // json, text or hex
	Size int
	Cut  bool
}

// maxBody bounds what is shown of a body, in bytes.
const maxBody = 64 << 10

// newBody makes a body readable.
func newBody(data []byte) body {
	b := body{Size: len(data), Kind: "text"}
	var indented bytes.Buffer
	switch {
	case len(data) <= maxBody && json.Valid(data) && json.Indent(&indented, data, "", "  ") == nil && indented.Len() <= 4*maxBody:
		b.Kind, b.Text = "json", printable.Text(indented.String(), 4*maxBody)
	case utf8.Valid(data) || len(data) > maxBody && utf8.ValidString(printable.Cut(string(data[:maxBody]), maxBody-4)):
		b.Text, b.Cut = printable.Text(string(data), maxBody), len(data) > maxBody
	default:
		b.Kind, b.Cut = "hex", len(data) > 1024
		for i := 0; i < min(len(data), 1024); i += 16 {
			b.Text += fmt.Sprintf("%04x  % x\n", i, data[i:min(i+16, len(data))])
		}
	}
	return b
}
