package console_test

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// editForm is the form of a dead letter as a browser would send it.
func (s *site) editForm(address url.Values) url.Values {
	s.t.Helper()
	form := s.form("act/edit?" + address.Encode())
	if !form.Has("body") {
		s.t.Fatalf("no field for the body: %v", form)
	}
	return form
}

func letter(s *testconsole.Service, event uuid.UUID) url.Values {
	return url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {event.String()}}
}

// A dead letter is edited and due; what was delivered is kept and shown.
func TestEdit(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Exec(t, "UPDATE parked SET body = $2 WHERE event_id = $1", service.Poison, []byte("\n{\"article\": 4711,\n\t\"note\": \"</textarea><b>\"}\n"))
	s := serve(t, console.Config{}, service)
	address := letter(service, service.Poison)
	s.want("letter?"+address.Encode(), "Edit and retry…")
	s.want("act/edit?"+address.Encode(), "Edit and retry 1 dead letter", "insert payment 77", "As it is now", "application/json", "What was delivered is kept")
	form := s.editForm(address)
	if want := "\r\n{\"article\": 4711,\r\n\t\"note\": \"</textarea><b>\"}\r\n"; form.Get("body") != want || form.Get("content_type") != "application/json" {
		t.Fatalf("the form has %q, of type %q", form.Get("body"), form.Get("content_type"))
	}

	form.Set("reason", "it has another number")
	refused := func(change func(url.Values), want int, says string) {
		t.Helper()
		bad, _ := url.ParseQuery(form.Encode())
		change(bad)
		if status, text, _ := s.post("act/edit", bad); status != want || !strings.Contains(html.UnescapeString(text), says) {
			t.Errorf("%d, want %d %s: %s", status, want, says, text)
		}
	}
	refused(func(url.Values) {}, http.StatusUnprocessableEntity, "Nothing has changed")
	refused(func(f url.Values) { f.Set("body", "{") }, http.StatusUnprocessableEntity, "The body is no JSON")
	refused(func(f url.Values) { f.Set("body", "\"\xff\"") }, http.StatusUnprocessableEntity, "not UTF-8")
	refused(func(f url.Values) { f.Set("body", `"`+strings.Repeat("x", 64<<10)+`"`) }, http.StatusUnprocessableEntity, "a browser may send")
	refused(func(f url.Values) { f.Set("body", "7"); f.Del("reason") }, http.StatusUnprocessableEntity, "Say why")
	refused(func(f url.Values) { f.Set("content_type", "a\nb") }, http.StatusUnprocessableEntity, "content type")
	refused(func(f url.Values) { f.Del("version") }, http.StatusBadRequest, "incomplete")
	refused(func(f url.Values) { f.Del("body") }, http.StatusBadRequest, "incomplete")
	refused(func(f url.Values) { f.Set("body", strings.Repeat("x", 400<<10)) }, http.StatusBadRequest, "can't be read")
	if reason := service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", service.Poison); reason != "dead" {
		t.Fatalf("it is %s", reason)
	}

	form.Set("body", "\r\n{\"article\": 4712}\r\n")
	status, text, header := s.post("act/edit", form)
	if status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	if got := service.Value(t, "SELECT reason || ' ' || attempts || ' ' || convert_from(body, 'UTF8') FROM parked WHERE event_id = $1", service.Poison); got != "retry 0 \n{\"article\": 4712}\n" {
		t.Errorf("it is %q", got)
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 dead letter edited and made due", "an operator has edited it", "Content as it was delivered", "4712", "4711")
	s.want("audit", "ann", "dead_letters.edit", "it has another number", service.Poison.String())
	if status, text, _ := s.post("act/edit", form); status != http.StatusConflict {
		t.Errorf("what is no dead letter any more: %d %s", status, text)
	}
	s.want("act/edit?"+address.Encode(), "Nothing matches any more")

	// It fails again: what was delivered first stands beside what is edited now.
	service.Exec(t, "UPDATE parked SET reason = 'dead' WHERE event_id = $1", service.Poison)
	s.want("act/edit?"+address.Encode(), "As it was delivered", "</textarea><b>")
}

// A dead letter that has changed since it was read is left as it is, and what the viewer has written is kept.
func TestEditOfWhatHasChanged(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service)
	address := letter(service, service.Poison)
	for name, change := range map[string]string{
		"content": `UPDATE parked SET body = '{"by":"another"}' WHERE event_id = $1`,
		"error":   `UPDATE parked SET last_error = 'another' WHERE event_id = $1`,
		"type":    `UPDATE parked SET content_type = 'text/json' WHERE event_id = $1`,
		"headers": `UPDATE parked SET headers = '{"tenant":"another"}' WHERE event_id = $1`,
	} {
		form := s.editForm(address)
		form.Set("body", `{"by":"ann"}`)
		form.Set("reason", "because")
		service.Exec(t, change, service.Poison)
		status, text, _ := s.post("act/edit", form)
		if text = html.UnescapeString(text); status != http.StatusConflict || !strings.Contains(text, "It has changed") || !strings.Contains(text, `{"by":"ann"}`) {
			t.Errorf("%s: %d %s", name, status, text)
		}
		version := regexp.MustCompile(`name="version" value="([0-9a-f]+)"`).FindStringSubmatch(text)
		if version == nil || version[1] == form.Get("version") {
			t.Errorf("%s: the version is %v", name, version)
		}
	}
	if body := service.Value(t, "SELECT reason || convert_from(body, 'UTF8') FROM parked WHERE event_id = $1", service.Poison); body != `dead{"by":"another"}` {
		t.Errorf("it is %s", body)
	}
	err := service.Operator.EditDeadLetter(t.Context(), operate.DeadLetterRef{Consumer: "billing", EventID: service.Poison}, operate.Edit{Body: []byte("{}"), Version: "old"})
	if !errors.Is(err, operate.ErrDeadLetterChanged) {
		t.Errorf("got %v", err)
	}
}

// What a browser can't edit without harm isn't edited there: the page names the command that does it.
func TestBodiesThatABrowserCannotEdit(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	hidden := console.Config{Redact: func(c console.Content) []byte {
		return []byte(strings.ReplaceAll(string(c.Body), testconsole.Secret, "****"))
	}}
	inPlace := console.Config{Redact: func(c console.Content) []byte { // which it must not
		copy(c.Body, strings.ReplaceAll(string(c.Body), testconsole.Secret, strings.Repeat("*", len(testconsole.Secret))))
		return c.Body
	}}
	good := []byte(`{"card":"` + testconsole.Secret + `"}`)
	for name, c := range map[string]struct {
		config console.Config
		body   []byte
		says   string
	}{
		"binary":   {body: []byte("\xff\x00\x01"), says: "no plain UTF-8 text"},
		"zero":     {body: []byte("a\x00b"), says: "no plain UTF-8 text"},
		"returns":  {body: []byte("a\r\nb"), says: "no plain UTF-8 text"},
		"reorders": {body: []byte("a\u202eb"), says: "no plain UTF-8 text"},
		"large":    {body: []byte(strings.Repeat("x", 64<<10+1)), says: "a browser edits"},
		"redacted": {config: hidden, body: good, says: "hidden from you"},
		"in place": {config: inPlace, body: good, says: "hidden from you"},
	} {
		s := serve(t, c.config, service)
		service.Exec(t, "UPDATE parked SET body = $2 WHERE event_id = $1", service.Poison, c.body)
		address := letter(service, service.Poison)
		text := s.want("act/edit?"+address.Encode(), c.says, "rocketflow redrive edit --body-file body --schema "+service.Schema+" --consumer billing "+service.Poison.String())
		if strings.Contains(text, "<textarea") || strings.ContainsAny(text, "\u202e\x00") || c.says == "hidden from you" && strings.Contains(text, testconsole.Secret) {
			t.Errorf("%s: %s", name, text)
		}
		list, err := service.Operator.DeadLetters(t.Context(), operate.ParkedFilter{EventID: service.Poison})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		form := letter(service, service.Poison)
		for field, value := range map[string]string{"version": list[0].Version(), "content_type": "application/json", "body": "{}", "reason": "because"} {
			form.Set(field, value)
		}
		if status, text, _ := s.post("act/edit", form); status != http.StatusConflict || !strings.Contains(html.UnescapeString(text), c.says) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	undecoded := serve(t, console.Config{}, service)
	service.Exec(t, `UPDATE parked SET body = 'x', headers = '{"rf_undecoded":{"rf_undecoded":"1"}}' WHERE event_id = $1`, service.Poison)
	if text := undecoded.want("act/edit?"+letter(service, service.Poison).Encode(), "could not be decoded"); strings.Contains(text, "redrive edit") || strings.Contains(text, "<textarea") {
		t.Error(text)
	}
	if n := service.Value(t, "SELECT count(*) FROM parked WHERE reason = 'dead'"); n != "2" {
		t.Errorf("%s dead letters are left", n)
	}
}

// Who may not see bodies may not edit them, whatever else they may do.
func TestEditNeedsBodiesAndThePermission(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	for name, v := range map[string]console.Viewer{
		"bob": {Actions: console.AllActions()}, "eve": {Bodies: true, Actions: []console.Action{console.Retry, console.Discard}},
	} {
		v.Name = name
		s := serve(t, console.Config{Authorize: as(v)}, service)
		form := letter(service, service.Poison)
		if text := s.want("letter?" + form.Encode()); strings.Contains(text, "Edit and retry") || !strings.Contains(text, "Retry…") {
			t.Errorf("%s: %s", name, text)
		}
		if status, text, _ := s.get("act/edit?" + form.Encode()); status != http.StatusForbidden || strings.Contains(text, testconsole.Secret) {
			t.Errorf("%s: %d %s", name, status, text)
		}
		for field, value := range map[string]string{"version": "x", "content_type": "application/json", "body": "{}", "reason": "because"} {
			form.Set(field, value)
		}
		if status, text, _ := s.post("act/edit", form); status != http.StatusForbidden || !strings.Contains(text, "The attempt was recorded") || strings.Contains(text, testconsole.Secret) {
			t.Errorf("%s: %d %s", name, status, text)
		}
		s.want("audit?denied=yes", name, "dead_letters.edit", "refused", service.Poison.String())
	}
	if reason := service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", service.Poison); reason != "dead" {
		t.Errorf("it is %s", reason)
	}
}

// Headers are edited with the body: what isn't touched stays, and what can't be edited in a browser without harm isn't.
func TestEditHeaders(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Exec(t, `UPDATE parked SET headers = '{"tenant":"acme","note":"a=b, <b>c</b>"}' WHERE event_id = $1`, service.Poison)
	s := serve(t, console.Config{}, service)
	address := letter(service, service.Poison)
	headers := func() string {
		t.Helper()
		list, err := service.Operator.DeadLetters(t.Context(), operate.ParkedFilter{EventID: service.Poison})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return fmt.Sprint(list[0].Event.Headers)
	}
	if got := headers(); got != "map[note:a=b, <b>c</b> tenant:acme]" {
		t.Fatalf("the headers are %s", got)
	}
	s.want("letter?"+address.Encode(), "Header tenant", "acme")
	form := s.editForm(address)
	if form.Get("headers") != "note=a=b, <b>c</b>\r\ntenant=acme\r\n" {
		t.Fatalf("the form has %q", form.Get("headers"))
	}
	form.Set("reason", "it has another tenant")
	for bad, says := range map[string]string{
		"tenant": "NAME=VALUE", "=x": "NAME=VALUE", "tenant=": "NAME=VALUE", "a=1\r\na=2": "twice", "a b=1": "headers", "rf_x=1": "reserved", "KEYS=1": "reserved",
		"a=" + strings.Repeat("x", 17<<10): "at most",
	} {
		form.Set("headers", bad)
		if status, text, _ := s.post("act/edit", form); status != http.StatusUnprocessableEntity || !strings.Contains(html.UnescapeString(text), says) {
			t.Errorf("%.20q: %d, want %s: %s", bad, status, says, text)
		}
	}
	edit := func(change func(url.Values)) {
		t.Helper()
		service.Exec(t, "UPDATE parked SET reason = 'dead' WHERE event_id = $1", service.Poison)
		form := s.editForm(address)
		form.Set("reason", "it has another tenant")
		change(form)
		if status, text, _ := s.post("act/edit", form); status != http.StatusSeeOther {
			t.Fatalf("%d %s", status, text)
		}
		service.Exec(t, "UPDATE parked SET reason = 'dead' WHERE event_id = $1", service.Poison)
	}
	edit(func(f url.Values) { f.Set("body", "{}") })
	if got := headers(); got != "map[note:a=b, <b>c</b> tenant:acme]" {
		t.Errorf("the headers have become %s", got)
	}
	edit(func(f url.Values) { f.Set("headers", " tenant = umbrella \r\n\r\n") })
	if got := headers(); got != "map[tenant:umbrella]" {
		t.Errorf("the headers have become %s", got)
	}
	s.want("letter?"+address.Encode(), "umbrella", "Content as it was delivered", "acme")
	edit(func(f url.Values) { f.Set("headers", "") })
	if got := headers(); got != "map[]" {
		t.Errorf("the headers have become %s", got)
	}

	// What is hidden or odd stays as it is; the body can be edited all the same.
	service.Exec(t, `UPDATE parked SET headers = '{"card":"number 77"}' WHERE event_id = $1`, service.Poison)
	hidden := serve(t, console.Config{Redact: func(c console.Content) []byte {
		if c.Header == "card" {
			return []byte("****")
		}
		return c.Body
	}}, service)
	if text := hidden.want("letter?"+address.Encode(), "Header card", "****"); strings.Contains(text, "number 77") {
		t.Error("the page shows the header")
	}
	if text := hidden.want("act/edit?"+address.Encode(), "hidden from you. They stay"); strings.Contains(text, "number 77") || strings.Contains(text, `name="headers"`) {
		t.Error(text)
	}
	s = hidden
	edit(func(f url.Values) { f.Set("body", "[]"); f.Set("headers", "card=1") })
	if got := headers(); got != "map[card:number 77]" {
		t.Errorf("the headers have become %s", got)
	}
	service.Exec(t, `UPDATE parked SET headers = '{"odd":" x\u202e"}', body = '{}' WHERE event_id = $1`, service.Poison)
	if text := serve(t, console.Config{}, service).want("act/edit?"+address.Encode(), "would change some of the headers"); strings.Contains(text, "\u202e") || !strings.Contains(text, `name="body"`) {
		t.Error(text)
	}
	blind := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob"})}, service)
	if text := blind.want("letter?"+address.Encode(), "You may not see bodies"); strings.Contains(text, "Header odd") {
		t.Error("somebody who may not see bodies sees headers")
	}
}
