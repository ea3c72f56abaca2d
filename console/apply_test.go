package console_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// form is the form of an action as a browser would send it.
func (s *site) form(page string) url.Values {
	s.t.Helper()
	text := s.want(page)
	_, text, _ = strings.Cut(text, `class="confirm"`)
	form := url.Values{}
	for _, field := range regexp.MustCompile(`<input[^>]* name="([a-z_]+)"[^>]* value="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	for _, area := range regexp.MustCompile(`(?s)<textarea[^>]* name="([a-z_]+)"[^>]*>\n(.*?)</textarea>`).FindAllStringSubmatch(text, -1) {
		form.Set(area[1], strings.ReplaceAll(html.UnescapeString(area[2]), "\n", "\r\n"))
	}
	return form
}

const applyTo = "act/apply-event?service=order&saga=order&key=o3"

// An event is applied to a running saga, once, and waits for it.
func TestApplyEvent(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Sagas = testconsole.Graphs()
	s := serve(t, console.Config{}, service)
	s.want("saga?service=order&name=order&key=o3", "Apply an event…")
	s.want(applyTo, "What it takes", "awaiting_payment", "payment.received", "<small>now</small>", "can't be undone", `class="danger"`)
	form := s.form(applyTo + "&topic=payments&type=payment.received")
	if form.Get("topic") != "payments" || form.Get("type") != "payment.received" || form.Get("subject") != "o3" || form.Get("revision") != "1" || form.Get("id") == "" {
		t.Fatalf("the form is %v", form)
	}
	form.Set("body", "{\r\n\"cents\": 7}")
	form.Set("reason", "the bank has lost it")
	refused := func(change func(url.Values), want int, says string) {
		t.Helper()
		bad, _ := url.ParseQuery(form.Encode())
		change(bad)
		if status, text, _ := s.post("act/apply-event", bad); status != want || !strings.Contains(html.UnescapeString(text), says) {
			t.Errorf("%d, want %d %s: %s", status, want, says, text)
		}
	}
	refused(func(f url.Values) { f.Del("reason") }, http.StatusUnprocessableEntity, "Say why")
	refused(func(f url.Values) { f.Set("body", "{") }, http.StatusUnprocessableEntity, "The body is no JSON")
	refused(func(f url.Values) { f.Set("body", "\"\xff\"") }, http.StatusUnprocessableEntity, "not UTF-8")
	refused(func(f url.Values) { f.Set("body", `"`+strings.Repeat("x", 64<<10)+`"`) }, http.StatusUnprocessableEntity, "a browser may send")
	refused(func(f url.Values) { f.Set("type", "payment.recieved") }, http.StatusUnprocessableEntity, "takes no event of this topic and type")
	refused(func(f url.Values) { f.Set("topic", "") }, http.StatusUnprocessableEntity, "Give the topic and the type")
	refused(func(f url.Values) { f.Set("subject", "a\tb") }, http.StatusUnprocessableEntity, "subject")
	refused(func(f url.Values) { f.Set("content_type", "a\nb") }, http.StatusUnprocessableEntity, "content type")
	for _, wait := range []string{"0", "-1h", "soon"} {
		refused(func(f url.Values) { f.Set("wait", wait) }, http.StatusUnprocessableEntity, "such as 30m")
	}
	for _, field := range []string{"id", "revision", "body"} {
		refused(func(f url.Values) { f.Del(field) }, http.StatusBadRequest, "incomplete")
	}
	refused(func(f url.Values) { f.Del("key") }, http.StatusBadRequest, "Which saga?")
	refused(func(f url.Values) { f.Set("key", "nobody") }, http.StatusConflict, "no such saga runs")
	refused(func(f url.Values) { f.Set("key", "4711") }, http.StatusConflict, "no such saga runs") // it has finished
	if n := service.Value(t, "SELECT count(*) FROM saga_waiting"); n != "0" {
		t.Fatalf("%s events wait", n)
	}

	status, text, header := s.post("act/apply-event", form)
	if status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	got := service.Value(t, "SELECT concat_ws(' ', saga, key, status, topic, type, subject, content_type, convert_from(body, 'UTF8'), round(extract(epoch FROM expires_at - arrived_at) / 60)) FROM saga_waiting")
	if got != "order o3 waiting payments payment.received o3 application/json {\n\"cents\": 7} 60" {
		t.Errorf("it is %q", got)
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 event given to the saga", "Waiting events", form.Get("id"))
	if status, text, _ := s.post("act/apply-event", form); status != http.StatusConflict || !strings.Contains(text, "This form was sent before") {
		t.Errorf("a second time: %d %s", status, text)
	}
	if n := service.Value(t, "SELECT count(*) FROM saga_waiting"); n != "1" {
		t.Errorf("%s events wait", n)
	}
	s.want("audit", "ann", "saga.apply", "the bank has lost it", form.Get("id"))
}

// An event is not applied to a saga that has changed since it was read, and what the viewer has written is kept.
func TestApplyEventToWhatHasChanged(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{}, service) // without the definition
	form := s.form(applyTo)
	form.Set("topic", "payments")
	form.Set("type", "payment.received")
	form.Set("body", `{"by":"ann"}`)
	form.Set("reason", "because")
	service.Exec(t, "UPDATE saga SET revision = 2, state = 'paid' WHERE key = 'o3'")
	status, text, _ := s.post("act/apply-event", form)
	if text = html.UnescapeString(text); status != http.StatusConflict || !strings.Contains(text, "The saga has changed") || !strings.Contains(text, `{"by":"ann"}`) ||
		!strings.Contains(text, "paid, after 2 transitions") || !strings.Contains(text, `name="revision" value="2"`) {
		t.Errorf("%d %s", status, text)
	}
	form.Set("revision", "2")
	if status, text, _ := s.post("act/apply-event", form); status != http.StatusSeeOther {
		t.Errorf("%d %s", status, text)
	}
	service.Exec(t, "UPDATE saga SET finished_at = now() WHERE key = 'o3'")
	s.want(applyTo, "it has finished, or has not begun")
}

func TestApplyEventNeedsThePermission(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	form := serve(t, console.Config{}, service).form(applyTo + "&topic=payments&type=payment.received")
	s := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob", Bodies: true, Actions: []console.Action{console.RetryWaiting}})}, service)
	if text := s.want("saga?service=order&name=order&key=o3"); strings.Contains(text, "Apply an event") {
		t.Error("the page offers it")
	}
	form.Set("reason", "because")
	form.Set("body", `"`+testconsole.Secret+`"`)
	if status, text, _ := s.get(applyTo); status != http.StatusForbidden {
		t.Errorf("the form: %d %s", status, text)
	}
	if status, text, _ := s.post("act/apply-event", form); status != http.StatusForbidden || !strings.Contains(text, "The attempt was recorded") {
		t.Errorf("%d %s", status, text)
	}
	if text := s.want("audit?denied=yes", "bob", "saga.apply", "refused", "o3"); strings.Contains(text, testconsole.Secret) {
		t.Error("the audit has the body")
	}
	if n := service.Value(t, "SELECT count(*) FROM saga_waiting"); n != "0" {
		t.Errorf("%s events wait", n)
	}
}
