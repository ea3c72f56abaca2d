package console_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pages are the addresses of all pages of a service.
func pages(s *testconsole.Service) []string {
	return []string{
		"", "events", "events?subject=4711", "events?type=order.seen", "why?id=" + s.Poison.String(), "why?id=4711", "why?id=" + s.Loose.String(),
		"dead", "dead?service=order", "letter?service=order&consumer=billing&event=" + s.Loose.String(), "streams", "sagas", "saga?service=order&name=order&key=4711",
		"saga?service=order&name=order&key=o3", "timeouts", "timeouts?late=yes", "timeouts?key=order/o3", "consumers", "doctor", "reconciliation", "audit", "rejected", "rejected?topic=order&type=x", "waiting", "waiting?status=any&saga=order",
		"waiting?key=o3&status=failed",
	}
}

// site is a console behind a team's own router.
type site struct {
	*httptest.Server
	t       testing.TB
	client  *http.Client
	console *console.Console
}

const prefix = "/ops/rocketflow"

// serve mounts a console of services below a prefix.
func serve(t testing.TB, c console.Config, services ...*testconsole.Service) *site {
	t.Helper()
	c.Prefix = prefix
	if c.Authorize == nil {
		c.Authorize = as(console.Viewer{Name: "ann", Bodies: true, Actions: console.AllActions()})
	}
	started := testconsole.Start(t, c, services...)
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", started)
	s := &site{Server: httptest.NewServer(mux), t: t, console: started}
	s.client = &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.Close()
	})
	poll.Within(t, 10*time.Second, "the first reading", func() bool {
		status, _, _ := s.get("")
		return status != http.StatusServiceUnavailable
	})
	return s
}

func as(v console.Viewer) func(*http.Request) (console.Viewer, error) {
	return func(*http.Request) (console.Viewer, error) { return v, nil }
}

func (s *site) do(r *http.Request) (int, string, http.Header) {
	s.t.Helper()
	answer, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

func (s *site) request(method, page, body string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+prefix+"/"+page, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", s.URL)
	}
	return r
}

func (s *site) get(page string) (int, string, http.Header) {
	s.t.Helper()
	return s.do(s.request(http.MethodGet, page, ""))
}

func (s *site) post(page string, form url.Values) (int, string, http.Header) {
	s.t.Helper()
	return s.do(s.request(http.MethodPost, page, form.Encode()))
}

func (s *site) want(page string, texts ...string) string {
	s.t.Helper()
	status, text, _ := s.get(page)
	if status != http.StatusOK {
		s.t.Errorf("%s: status %d: %s", page, status, text)
	}
	for _, want := range texts {
		if !strings.Contains(html.UnescapeString(text), want) {
			s.t.Errorf("%s lacks %q:\n%s", page, want, text)
		}
	}
	return text
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	pool := testconsole.New(t, "shop").Operator
	ok := as(console.Viewer{})
	for _, path := range []string{"//evil.example", "/a/../b", "/{a}", "/a b", "/a?b", "/a#b"} {
		_, err := console.New(console.Config{Services: []console.Service{{Operator: pool}}, Authorize: ok, Prefix: path})
		var invalid *rocketflow.FieldError
		if !errors.As(err, &invalid) || invalid.Field != "console.Config.Prefix" {
			t.Errorf("%s: got %v", path, err)
		}
	}
	for field, c := range map[string]console.Config{
		"console.Config.Services":  {Authorize: ok},
		"console.Config.Authorize": {Services: []console.Service{{Operator: pool}}},
		"console.Config.Prefix":    {Services: []console.Service{{Operator: pool}}, Authorize: ok, Prefix: "ops"},
		"console.Config.MaxChange": {Services: []console.Service{{Operator: pool}}, Authorize: ok, MaxChange: -1},
		"console.Config.Services ": {Services: []console.Service{{Operator: pool}, {Operator: pool}}, Authorize: ok},
		"console.Config.TrustedOrigins": {
			Services: []console.Service{{Operator: pool}}, Authorize: ok, TrustedOrigins: []string{"nowhere"},
		},
	} {
		_, err := console.New(c)
		var invalid *rocketflow.FieldError
		if !errors.As(err, &invalid) || invalid.Field != strings.TrimSpace(field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// All pages are there, are whole, are bounded by a Content-Security-Policy and show no hostile text as it is.
func TestPages(t *testing.T) {
	t.Parallel()
	service, other := testconsole.New(t, "shop"), testconsole.New(t, "bank")
	large := service.Reject(t, "order", 3)
	waiting := service.Wait(t, "o3", "failed", testconsole.Hostile)
	s := serve(t, console.Config{}, service, other)
	for _, page := range append(pages(service), "act/discard-rejected?service=order&event="+large.String(), "act/retry-waiting?service=order&status=failed&waiting="+waiting,
		"act/discard?service=order&consumer=billing&event="+service.Loose.String()) {
		status, text, header := s.get(page)
		switch {
		case status != http.StatusOK:
			t.Errorf("%s: status %d: %s", page, status, text)
		case !strings.HasSuffix(strings.TrimSpace(text), "</html>"):
			t.Errorf("%s ends too early: %s", page, text)
		case strings.Contains(text, "<script>") || strings.Contains(text, "<img") || strings.Contains(text, "onerror=alert(1)>") || strings.ContainsAny(text, "\u202e\x1b"):
			t.Errorf("%s shows hostile text as it is: %s", page, text)
		case regexp.MustCompile(`\sstyle=|<style|\son[a-z]+=`).MatchString(strings.ReplaceAll(text, "onerror=alert", "")):
			t.Errorf("%s has inline code: %s", page, text)
		case !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'self'; "):
			t.Errorf("%s: %v", page, header)
		}
		// All links lead somewhere below the prefix.
		for _, link := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			if address := html.UnescapeString(link[1]); !strings.HasPrefix(address, prefix+"/") && !strings.HasPrefix(address, "#") {
				t.Errorf("%s links to %s", page, address)
			}
		}
	}
	for file, kind := range map[string]string{"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		if status, _, header := s.get("static/" + file); status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %v", file, status, header)
		}
	}
	for _, page := range []string{"nothing", "static/", "static/../console.go"} {
		if status, _, _ := s.get(page); status != http.StatusNotFound && status != http.StatusMovedPermanently && status != http.StatusTemporaryRedirect {
			t.Errorf("%s: status %d", page, status)
		}
	}
}

func TestWhatPagesTell(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	s.want("", "shop", "needs action", "awaiting_payment", "by relay", "1 stream held")
	s.want("events", service.Owed.String(), "owed", "confirmed")
	s.want("why?id="+service.Poison.String(), "stopped", "no such article", "rocketflow redrive retry", testconsole.Secret)
	s.want("why?id=4711", service.Poison.String(), "Time line")
	s.want("dead", "insert payment …: no such article …")
	s.want("letter?service=order&consumer=billing&event="+service.Poison.String(), "8 failed attempts", testconsole.Secret, "Discard…")
	s.want("streams", "4711", "insert payment 77", `<b>2</b>`)
	s.want("sagas", "awaiting_payment", "closed")
	s.want("saga?service=order&name=order&key=4711", "finished", "order.closed")
	s.want("timeouts?late=yes", "order/o1", "late")
	s.want("timeouts?key=order/o3", "moved", "by an operator", "2 h ago")
	s.want("consumers", "order.changed of orders")
	s.want("doctor", "rocketflow doctor")
	if status, text, _ := s.get("why?id=" + uuid.NewString()); status != http.StatusNotFound || !strings.Contains(text, "looked for") {
		t.Errorf("an unknown id: %d %s", status, text)
	}
	if status, _, _ := s.get("events?service=nobody"); status != http.StatusNotFound {
		t.Errorf("an unknown service: %d", status)
	}
	for _, page := range []string{"events?after=x", "dead?service=order&after=W10", "sagas?after=x", "timeouts?after=x", "streams?after=x", "events?since=yesterday", "letter?event=1", "why"} {
		if status, text, _ := s.get(page); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", page, status, text)
		}
	}
	s.want("events?subject=%00%ff%27", "Nothing matches")
}

func TestNobodySeesAnythingUnauthorized(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	for name, authorize := range map[string]func(*http.Request) (console.Viewer, error){
		"refused": func(*http.Request) (console.Viewer, error) {
			return console.Viewer{Actions: console.AllActions()}, errors.New("a secret reason")
		},
		"panics": func(*http.Request) (console.Viewer, error) { panic("no") },
	} {
		s := serve(t, console.Config{Authorize: authorize}, service)
		for _, page := range append(pages(service), "static/console.js", "act/retry?service=order") {
			status, text, _ := s.get(page)
			if status != http.StatusForbidden || strings.Contains(text, "secret") || strings.Contains(text, "shop") {
				t.Errorf("%s: %s: %d %s", name, page, status, text)
			}
		}
		if status, _, _ := s.post("act/retry", url.Values{"service": {"order"}, "reason": {"x"}}); status != http.StatusForbidden {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if n := service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'dead'"); n != "2" {
		t.Errorf("%s dead letters are left", n)
	}
}

// The zero Viewer reads, but sees no bodies and changes nothing.
func TestZeroViewer(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Authorize: as(console.Viewer{})}, service)
	for _, page := range pages(service) {
		if text := s.want(page); strings.Contains(text, testconsole.Secret) || strings.Contains(text, "/act/") || strings.Contains(text, "<form method=\"post\"") {
			t.Errorf("%s shows too much: %s", page, text)
		}
	}
	for _, action := range []string{"act/retry", "act/edit", "act/discard", "act/accept-gap", "act/resend", "act/retry-rejected", "act/redirect-rejected", "act/discard-rejected", "act/retry-waiting", "act/discard-waiting", "act/apply-event", "act/pause", "act/resume", "act/fire-timeout", "act/move-timeout", "act/disarm-timeout", "doctor", "reconciliation"} {
		form := url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {service.Poison.String()}, "reason": {"because"}, "saga": {"order"}, "key": {"o3"}, "to": {"x"}}
		if status, text, _ := s.post(action, form); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", action, status, text)
		}
		if strings.HasPrefix(action, "act/") {
			if status, _, _ := s.get(action + "?" + form.Encode()); status != http.StatusForbidden {
				t.Errorf("%s: the form: %d", action, status)
			}
		}
	}
	if n := service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'dead'"); n != "2" || len(service.Sent.IDs()) > 0 {
		t.Errorf("%s dead letters are left, sent %v", n, service.Sent.IDs())
	}
	if n := service.Value(t, "SELECT count(*) FROM audit"); n != "0" {
		t.Errorf("somebody without a name has filled the audit with %s entries", n)
	}
}

// What a viewer attempts and may not do is recorded, with their name.
func TestDeniedAttemptsAreRecorded(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob", Actions: []console.Action{console.Retry}})}, service, testconsole.New(t, "bank"))
	form := url.Values{"service": {"order"}, "event": {service.Poison.String()}, "reason": {"because"}}
	if status, text, _ := s.post("act/discard", form); status != http.StatusForbidden || !strings.Contains(text, "The attempt was recorded") {
		t.Errorf("%d %s", status, text)
	}
	s.want("audit?denied=yes", "bob", "dead_letters.discard", "refused", service.Poison.String())
	for page, action := range map[string]string{"doctor": "doctor.examine", "reconciliation": "reconcile"} {
		if status, text, _ := s.post(page, nil); status != http.StatusForbidden || !strings.Contains(text, "The attempt was recorded") {
			t.Errorf("%s: %d %s", page, status, text)
		}
		s.want("audit?denied=yes&action="+action, "bob", "refused")
		s.want("audit?denied=yes&service=payment&action="+action, "bob", "refused")
	}
}

// Two pages whose addresses differ in a number alone are two, also within the second in which one is shown to several viewers.
func TestPagesOfHighNumbersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	service.Exec(t, "SELECT setval(pg_get_serial_sequence('audit', 'id'), 1114111)") // above are no runes
	if _, err := service.Operator.RetryDeadLetters(t.Context(), operate.ParkedFilter{EventID: service.Poison}); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 10*time.Second, "the pages differ within the time that one is kept", func() bool {
		console.ForgetReads(s.console)
		began := time.Now()
		_, before, _ := s.get("audit?before=1114112")
		_, after, _ := s.get("audit?before=1114113")
		if time.Since(began) > 500*time.Millisecond {
			return false // too slow to say
		}
		if strings.Contains(before, service.Poison.String()) || !strings.Contains(after, service.Poison.String()) {
			t.Error("the page is that of another number")
		}
		return true
	})
}

// Extension attributes are content: only viewers who may see bodies see their values, redacted.
func TestExtensionsAreContent(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	for _, table := range []string{"outbox", "parked"} {
		id := map[string]string{"outbox": "id", "parked": "event_id"}[table]
		service.Exec(t, "UPDATE "+table+` SET headers = '{"CE_customer": "Ann Miller", "CE_iban": "DE02"}' WHERE `+id+" = $1", service.Poison)
	}
	pages := []string{"why?id=" + service.Poison.String(), "letter?service=order&consumer=billing&event=" + service.Poison.String()}
	redact := func(c console.Content) []byte {
		if c.Header == "iban" {
			return []byte("(an account)")
		}
		return c.Body
	}
	s := serve(t, console.Config{Redact: redact}, service)
	poor := serve(t, console.Config{Authorize: as(console.Viewer{}), Redact: redact}, service)
	for _, page := range pages {
		if text := s.want(page, "customer", "Ann Miller", "iban", "(an account)"); strings.Contains(text, "DE02") {
			t.Errorf("%s: it is not redacted", page)
		}
		if text := poor.want(page, "customer", "iban", "You may not see it"); strings.Contains(text, "Ann Miller") || strings.Contains(text, "DE02") {
			t.Errorf("%s: a viewer who may see no bodies sees it", page)
		}
	}
}

// What comes after a long error in a verdict is shown.
func TestLongErrorsLeaveTheVerdictWhole(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Exec(t, "UPDATE parked SET last_error = $2 WHERE event_id = $1", service.Poison, "insert payment: "+strings.Repeat("ä very long error ", 40))
	s := serve(t, console.Config{}, service)
	for _, id := range []string{service.Poison.String(), "4711"} {
		s.want("why?id="+id, "failed for good", "held behind it")
	}
}

// What is changed is recorded, with who did it and why.
func TestChangesAreRecorded(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	form := url.Values{"service": {"order"}, "event": {service.Poison.String()}, "reason": {"the article <b>is</b> there"}}
	if status, text, _ := s.post("act/retry", form); status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	s.want("audit", "ann", "dead_letters.retry", "the article <b>is</b> there", service.Poison.String())
	s.want("audit?actor=nobody", "Nothing is recorded")
}

func TestPauseAndTimeouts(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	act := func(action string, form url.Values, want int) string {
		t.Helper()
		form.Set("service", "order")
		form.Set("reason", "maintenance")
		if want == http.StatusSeeOther {
			s.want("act/"+action+"?"+form.Encode(), "Reason", "<form method=\"post\"")
		}
		status, text, header := s.post("act/"+action, form)
		if status != want {
			t.Errorf("%s: %d %s", action, status, text)
		}
		return strings.TrimPrefix(header.Get("Location"), prefix+"/")
	}
	for _, target := range []url.Values{
		{"kind": {"consumer"}, "consumer": {"billing"}},
		{"kind": {"handler"}, "consumer": {"billing"}, "topic": {"orders"}, "type": {"order.changed"}},
		{"kind": {"stream"}, "consumer": {"billing"}, "topic": {"orders"}, "subject": {"4711"}},
	} {
		s.want(act("pause", target, http.StatusSeeOther), "1 pause begun")
	}
	if n := service.Value(t, "SELECT count(*) FROM pause WHERE actor = 'ann' AND reason = 'maintenance'"); n != "3" {
		t.Errorf("%s pauses", n)
	}
	poll.Within(t, 10*time.Second, "the page of consumers tells of the pauses", func() bool {
		_, text, _ := s.get("consumers")
		return strings.Count(text, "Resume…") == 3
	})
	s.want(act("resume", url.Values{"kind": {"consumer"}, "consumer": {"billing"}}, http.StatusSeeOther), "1 pause ended")
	act("pause", url.Values{"kind": {"consumer"}, "consumer": {"nobody"}}, http.StatusConflict)
	act("pause", url.Values{"kind": {"universe"}, "consumer": {"billing"}}, http.StatusBadRequest)

	due := func(key string) string {
		return service.Value(t, "SELECT max(due_at) <= now() FROM timeout WHERE key = $1", key)
	}
	act("fire-timeout", url.Values{"key": {"order/o20"}, "name": {"deadline"}}, http.StatusSeeOther)
	if due("order/o20") != "true" {
		t.Error("it is not due")
	}
	move := url.Values{"key": {"order/o21"}, "name": {"deadline"}}
	act("move-timeout", move, http.StatusUnprocessableEntity)
	move.Set("at", "2020-01-02T03:04")
	act("move-timeout", move, http.StatusSeeOther)
	if due("order/o21") != "true" {
		t.Error("it has not moved")
	}
	act("disarm-timeout", url.Values{"key": {"order/o22"}, "name": {"deadline"}}, http.StatusSeeOther)
	act("disarm-timeout", url.Values{"key": {"order/o22"}, "name": {"deadline"}}, http.StatusConflict)
}

func TestRedaction(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Redact: func(c console.Content) []byte {
		if c.Saga == "" && c.Event.Type == "" || c.Viewer.Name != "ann" || c.Service != "order" {
			panic("what is it?")
		}
		return []byte(strings.ReplaceAll(string(c.Body), testconsole.Secret, "****"))
	}}, service)
	for _, page := range []string{"why?id=" + service.Poison.String(), "letter?service=order&consumer=billing&event=" + service.Poison.String(), "saga?service=order&name=order&key=o3"} {
		if text := s.want(page, "****"); strings.Contains(text, testconsole.Secret) {
			t.Errorf("%s shows %s", page, text)
		}
	}
	failing := serve(t, console.Config{Redact: func(console.Content) []byte { panic("no") }}, service)
	if status, text, _ := failing.get("why?id=" + service.Poison.String()); status != http.StatusInternalServerError || strings.Contains(text, testconsole.Secret) {
		t.Errorf("%d %s", status, text)
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 3)
	s := serve(t, console.Config{}, service)

	// One by its id: the form says what it is, wants a reason, and then it is done.
	one := url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {service.Poison.String()}}
	s.want("act/retry?"+one.Encode(), "Retry 1 dead letter", service.Poison.String(), "Reason")
	if status, text, _ := s.post("act/retry", one); status != http.StatusUnprocessableEntity || !strings.Contains(text, "Say why") {
		t.Errorf("without a reason: %d %s", status, text)
	}
	one.Set("reason", "the article is there now")
	status, _, header := s.post("act/retry", one)
	if status != http.StatusSeeOther || service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", service.Poison) != "retry" {
		t.Fatalf("status %d", status)
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 dead letter made due")

	// A group by its error, whose numbers differ.
	group := url.Values{"service": {"order"}, "consumer": {"mailing"}, "type": {"order.closed"}, "error": {"mailbox … is full"}}
	s.want("act/discard?"+group.Encode(), "Discard 3 dead letters", "mailbox … is full")
	group.Set("reason", "nobody reads them")
	if status, text, _ := s.post("act/discard", group); status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	if left := service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'dead'"); left != "1" {
		t.Errorf("%s dead letters are left", left)
	}

	// Everything that is left.
	all := url.Values{"service": {"order"}, "reason": {"again"}}
	s.want("act/retry?"+all.Encode(), "all dead letters of the service", "Retry 1 dead letter")
	if status, _, _ := s.post("act/retry", all); status != http.StatusSeeOther || service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'dead'") != "0" {
		t.Errorf("status %d", status)
	}
	s.want("act/retry?"+all.Encode(), "Nothing matches any more")

	resend := url.Values{"service": {"order"}, "event": {service.Handled.String()}, "reason": {"the broker lost it"}}
	s.want("act/resend?"+resend.Encode(), "Send again")
	if status, text, _ := s.post("act/resend", resend); status != http.StatusSeeOther || len(service.Sent.IDs()) != 1 || uuid.MustParse(service.Sent.IDs()[0]) != service.Handled {
		t.Errorf("%d %s; sent %v", status, text, service.Sent.IDs())
	}
	for _, page := range []string{"act/destroy?service=order", "act/retry?service=nobody", "act/retry"} {
		if status, _, _ := s.get(page); status != http.StatusNotFound {
			t.Errorf("%s: status %d", page, status)
		}
	}
	if status, _, _ := s.get("act/resend?service=order"); status != http.StatusBadRequest {
		t.Errorf("resend of nothing: status %d", status)
	}
}

// An action changes no more than Config.MaxChange, and says so before.
func TestActionsAreCapped(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 5)
	s := serve(t, console.Config{MaxChange: 2}, service)
	form := url.Values{"service": {"order"}, "consumer": {"mailing"}, "reason": {"again"}}
	s.want("act/retry?"+form.Encode(), "Retry 2 dead letters of more", "At most 2")
	if status, text, _ := s.post("act/retry", form); status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	if n := service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'retry'"); n != "2" {
		t.Errorf("retried %s", n)
	}
}

// An action changes no more than what was confirmed, although more has come since.
func TestActionsChangeWhatWasConfirmed(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 3)
	s := serve(t, console.Config{}, service)
	form := url.Values{"service": {"order"}, "consumer": {"mailing"}, "reason": {"nobody reads them"}}
	shown := regexp.MustCompile(`name="shown" value="(\d+)"`).FindStringSubmatch(s.want("act/discard?"+form.Encode(), "Discard 3 dead letters"))
	if shown == nil {
		t.Fatal("the form doesn't send how many it names")
	}
	service.Exec(t, "UPDATE parked SET parked_at = parked_at - interval '1 h' WHERE consumer = 'mailing'")
	service.Letters(t, 5)
	form.Set("shown", shown[1])
	status, _, header := s.post("act/discard", form)
	if status != http.StatusSeeOther {
		t.Fatalf("status %d", status)
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "3 dead letters discarded")
	if n := service.Value(t, "SELECT count(*) FROM parked WHERE consumer = 'mailing' AND parked_at > now() - interval '30 min'"); n != "5" {
		t.Errorf("%s of 5 new ones are left", n)
	}
	form.Set("shown", "1000000")
	form.Set("consumer", "billing")
	if status, _, _ := s.post("act/discard", form); status != http.StatusSeeOther {
		t.Errorf("more than Config.MaxChange: status %d", status)
	}
}

// What matches is found behind many rows that don't: the form looks at some of them, and its link at the next.
func TestActionsLookFurther(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 15_000)
	service.Exec(t, "UPDATE parked SET type = 'order.rare', parked_at = clock_timestamp() WHERE consumer = 'mailing' AND last_error = 'mailbox 77 is full'")
	service.Exec(t, `INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, changed_at, event_id, source, topic, type, subject, sequence, previous,
			recorded_at, database, content_type, body)
		SELECT CASE n WHEN 1 THEN 'rare' ELSE 'cart' END, 'c', 'failed', true, 's', 'infinity', now(), now() - n * interval '1 ms', gen_random_uuid(), 'shop', 'payments',
			'payment.received', 'c', 0, 0, now(), '', 'application/json', '{}'
		FROM generate_series(1, 15000) n`)
	s := serve(t, console.Config{}, service)
	further := regexp.MustCompile(`href="/ops/rocketflow/([^"]+)">Look further`)
	for action, c := range map[string]struct {
		form  url.Values
		thing string
		left  string
	}{
		"retry":         {url.Values{"service": {"order"}, "type": {"order.rare"}}, "dead letter", "SELECT count(*) FROM parked WHERE type = 'order.rare' AND reason = 'dead'"},
		"retry-waiting": {url.Values{"service": {"order"}, "saga": {"rare"}}, "waiting event", "SELECT count(*) FROM saga_waiting WHERE saga = 'rare' AND status = 'failed'"},
	} {
		text := s.want("act/"+action+"?"+c.form.Encode(), "No "+c.thing+" matches so far", "Look further")
		address := further.FindStringSubmatch(text)
		if address == nil {
			t.Fatalf("%s: no link in %s", action, text)
		}
		text = s.want(html.UnescapeString(address[1]), "Retry 1 "+c.thing)
		after := regexp.MustCompile(`name="after" value="([^"]+)"`).FindStringSubmatch(text)
		if after == nil {
			t.Fatalf("%s: the form forgets where it has looked", action)
		}
		c.form.Set("after", html.UnescapeString(after[1]))
		if status, text, _ := s.post("act/"+action, c.form); status != http.StatusUnprocessableEntity || !strings.Contains(text, "Retry 1 "+c.thing) {
			t.Errorf("%s: without a reason: %d %s", action, status, text)
		}
		c.form.Set("reason", "again")
		if status, text, _ := s.post("act/"+action, c.form); status != http.StatusSeeOther || service.Value(t, c.left) != "0" {
			t.Errorf("%s: %d %s", action, status, text)
		}
		s.want("act/"+action+"?"+c.form.Encode(), "No "+c.thing+" matches.")
		c.form.Set("after", "nonsense")
		if status, _, _ := s.get("act/" + action + "?" + c.form.Encode()); status != http.StatusBadRequest {
			t.Errorf("%s: a place that is none: status %d", action, status)
		}
	}
}

// A page of another origin can't have a browser change something, and another host name is refused.
func TestOtherOriginsAndHosts(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Hosts: []string{"127.0.0.1", "console.example"}}, service)
	form := url.Values{"service": {"order"}, "event": {service.Poison.String()}, "reason": {"x"}}.Encode()
	for name, change := range map[string]func(*http.Request){
		"origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"null":   func(r *http.Request) { r.Header.Set("Origin", "null") },
		"site":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
	} {
		r := s.request(http.MethodPost, "act/retry", form)
		change(r)
		if status, text, _ := s.do(r); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if reason := service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", service.Poison); reason != "dead" {
		t.Error("it was retried")
	}
	for host, want := range map[string]int{"console.example:8080": 200, "CONSOLE.example": 200, "evil.example": 421, "127.0.0.1.evil.example": 421, "[::1]:80": 421} {
		r := s.request(http.MethodGet, "", "")
		r.Host = host
		if status, _, _ := s.do(r); status != want {
			t.Errorf("%s: status %d, want %d", host, status, want)
		}
	}
}

// All rows of a list are reached by its pages, each once.
func TestPaging(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 120)
	service.Reject(t, "order", 120)
	service.Exec(t, "DELETE FROM outbox_rejected WHERE topic = 'orders'")
	for i := range 140 {
		service.Wait(t, fmt.Sprintf("w%d", i), []string{"failed", "waiting"}[i%2], "")
	}
	s := serve(t, console.Config{}, service)
	for first, want := range map[string]struct {
		pattern string
		rows    int
	}{
		"rejected":                            {`event=([0-9a-f-]{36})&amp;service=order&amp;topic=order">Retry`, 120},
		"waiting":                             {`name=order&amp;service=order">order (\w+)`, 70},
		"waiting?status=any":                  {`name=order&amp;service=order">order (\w+)`, 140},
		"dead?service=order&consumer=mailing": {`letter\?consumer=mailing&(?:amp;)?event=([0-9a-f-]{36})`, 120},
		"sagas":                               {`saga\?key=(\w+)&`, 71},
		"timeouts":                            {`why\?id=order%2F(\w+)`, 70},
	} {
		seen := map[string]bool{}
		count, hops := 0, 0
		for page := first; page != ""; hops++ {
			text := s.want(page)
			for _, found := range regexp.MustCompile(want.pattern).FindAllStringSubmatch(text, -1) {
				if count++; seen[found[1]] {
					t.Errorf("%s shows %s twice", first, found[1])
				}
				seen[found[1]] = true
			}
			page = ""
			if next := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(text); next != nil {
				page = strings.TrimPrefix(html.UnescapeString(next[1]), prefix+"/")
			}
		}
		if count != want.rows || hops != (want.rows+49)/50 {
			t.Errorf("%s: %d rows on %d pages, want %d", first, count, hops, want.rows)
		}
	}
}

// A reconciliation and its result, on demand.
func TestReconciliationOnDemand(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Reconcile: operate.ReconcileConfig{Grace: 30 * time.Second}}, service)
	s.want("reconciliation", "Nothing was compared yet", "Compare now")
	if status, text, _ := s.post("reconciliation", nil); status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	s.want("reconciliation", "Published", "by ann", "billing")
}

// What the doctor can't know is shown with what lets it know.
func TestDoctorPageNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	poor := testdb.As(t, service.Pool, testdb.Role(t))
	d, err := doctor.New(doctor.Config{Databases: []doctor.Database{{Pool: poor, Schemas: []string{service.Schema}}}, Only: []string{"outbox-owed"}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, console.Config{Doctor: d}, service)
	if status, text, _ := s.post("doctor", nil); status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	s.want("doctor", "Not known", "a right is missing", "What lets it look", "GRANT SELECT ON ALL TABLES IN SCHEMA")
}

// The database may go: the overview shows what it knew, and says so.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	s.want("", "needs action")
	service.Exec(t, "ALTER SCHEMA "+service.Schema+" RENAME TO "+service.Schema+"_away")
	defer service.Exec(t, "ALTER SCHEMA "+service.Schema+"_away RENAME TO "+service.Schema)
	poll.Within(t, 20*time.Second, "the overview says that it is old", func() bool {
		_, text, _ := s.get("")
		return strings.Contains(text, "read; this is from") && strings.Contains(text, "not known")
	})
	if status, text, _ := s.get("events"); status != http.StatusInternalServerError || !strings.Contains(text, "could not be read") {
		t.Errorf("%d %s", status, text)
	}
}

// One database of several may go: the others are shown, and as new as ever.
func TestOneDatabaseAway(t *testing.T) {
	t.Parallel()
	shop, bank := testconsole.New(t, "shop"), testconsole.New(t, "bank")
	s := serve(t, console.Config{}, shop, bank)

	held, err := shop.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := held.Exec(t.Context(), "LOCK TABLE installation"); err != nil { // it answers nothing now
		t.Fatal(err)
	}
	bank.Letters(t, 37)
	var text string
	poll.Within(t, 20*time.Second, "the overview shows the letters of the other", func() bool {
		_, text, _ = s.get("")
		return strings.Contains(text, ">39<")
	})
	if strings.Contains(text, "be read") {
		t.Errorf("it was shown only when the first was given up: %s", text)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	shop.Exec(t, "ALTER SCHEMA "+shop.Schema+" RENAME TO "+shop.Schema+"_away")
	defer shop.Exec(t, "ALTER SCHEMA "+shop.Schema+"_away RENAME TO "+shop.Schema)
	s.want("dead", "order can't be read", "mailbox … is full")
	s.want("consumers", "order can't be read", "order.changed of orders")
	_, letters, _ := s.get("dead?service=payment")
	event := regexp.MustCompile(`event=([0-9a-f-]{36})`).FindStringSubmatch(letters)
	if event == nil {
		t.Fatalf("no letter of the other service: %s", letters)
	}
	s.want("why?id="+event[1], "Not read: schema "+shop.Schema, "What service payment has recorded")
}

// Pages are answered only between Start and Stop, and a Console can start again.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	c, err := console.New(console.Config{Services: []console.Service{{Operator: service.Operator}}, Authorize: as(console.Viewer{})})
	if err != nil {
		t.Fatal(err)
	}
	status := func() int {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/events", nil))
		return w.Code
	}
	if err := c.Stop(t.Context()); err != nil || status() != http.StatusServiceUnavailable {
		t.Errorf("before the start: %v, status %d", err, status())
	}
	for range 2 {
		for range 2 {
			if err := c.Start(t.Context()); err != nil || status() != http.StatusOK {
				t.Errorf("started: %v, status %d", err, status())
			}
		}
		for range 2 {
			if err := c.Stop(t.Context()); err != nil || status() != http.StatusServiceUnavailable {
				t.Errorf("stopped: %v, status %d", err, status())
			}
		}
	}
}

// A group is retried only once one of it was handled, if the viewer wants that.
func TestOneIsTriedFirst(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 3)
	s := serve(t, console.Config{}, service)
	form := url.Values{"service": {"order"}, "consumer": {"mailing"}, "reason": {"again"}, "first": {"yes"}}
	s.want("act/retry?"+form.Encode(), "Try one first")
	answered := make(chan string, 1)
	go func() {
		status, text, _ := s.post("act/retry", form)
		answered <- strings.Join([]string{http.StatusText(status), text}, " ")
	}()
	retried := func() string {
		return service.Value(t, "SELECT count(*) FROM parked WHERE consumer = 'mailing' AND reason = 'retry'")
	}
	poll.Within(t, 10*time.Second, "one is retried", func() bool { return retried() == "1" })
	service.Exec(t, "UPDATE parked SET reason = 'dead', attempts = 8, last_error = 'still full' WHERE consumer = 'mailing' AND reason = 'retry'") // its handler failed
	if text := <-answered; !strings.Contains(text, "The first one was not handled") || !strings.Contains(text, "still full") || retried() != "0" {
		t.Errorf("%s; %s are retried", text, retried())
	}
}
