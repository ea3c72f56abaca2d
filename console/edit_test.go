package console_test

import (
	"errors"
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
	text := s.want("act/edit?" + address.Encode())
	form := url.Values{}
	for _, field := range regexp.MustCompile(`<input[^>]* name="([a-z_]+)" value="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	area := regexp.MustCompile(`(?s)<textarea[^>]*>\n(.*)</textarea>`).FindStringSubmatch(text)
	if area == nil {
		s.t.Fatalf("no field for the body: %s", text)
	}
	form.Set("body", strings.ReplaceAll(html.UnescapeString(area[1]), "\n", "\r\n"))
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
	refused(func(f url.Values) { f.Set("body", strings.Repeat("x", 300<<10)) }, http.StatusBadRequest, "can't be read")
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
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 dead letter edited and made due", "an operator has edited it", "Body as it was delivered", "4712", "4711")
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
