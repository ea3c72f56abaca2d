package console_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// Waiting events are listed with those that need an operator first; the overview and the saga's page have them, too.
func TestWaitingEventsAreListed(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Wait(t, "o1", "waiting", "")
	service.Wait(t, "o2", "retry", "no answer")
	service.Wait(t, "o3", "failed", testconsole.Hostile)
	service.Wait(t, "o4", "expired", "")
	s := serve(t, console.Config{}, service)
	s.want("", "needs action", "waiting?saga=order&service=order&status=failed", "1 event for saga order")
	rows := func(page string, want int) string {
		t.Helper()
		text := s.want(page)
		if n := strings.Count(text, "payment.received"); n != want {
			t.Errorf("%s has %d events, want %d: %s", page, n, want, text)
		}
		return text
	}
	if text := rows("waiting", 2); strings.Contains(text, "<script>") || strings.Contains(text, "\u202e") || !strings.Contains(text, "order o3") || !strings.Contains(text, "order o4") {
		t.Error(text)
	}
	rows("waiting?status=any", 4)
	rows("waiting?status=waiting", 1)
	rows("waiting?status=failed&saga=order", 1)
	rows("waiting?key=o2&status=any", 1)
	rows("waiting?key=o2", 0)
	rows("waiting?saga=nothing", 0)
	if text := rows("waiting?status=retry", 1); strings.Contains(text, "all that match") {
		t.Error("those that don't need an operator can be changed together")
	}
	s.want("saga?service=order&name=order&key=o3", "Waiting events", "failed", "act/retry-waiting?key=o3&saga=order&service=order&status=failed&waiting=")
	for _, page := range []string{"waiting?status=<b>", "waiting?after=x", "waiting?after=WyJ4IiwieCJd"} {
		if status, text, _ := s.get(page); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", page, status, text)
		}
	}
}

// Waiting events are retried and discarded one by one or together: those that failed or expired, and none that has changed meanwhile.
func TestActionsOnWaitingEvents(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	early := service.Wait(t, "o1", "waiting", "")
	failed := service.Wait(t, "o3", "failed", "no such article")
	for range 3 {
		service.Wait(t, "o4", "expired", "")
	}
	s := serve(t, console.Config{MaxChange: 2}, service)
	status := func(number string) string {
		return service.Value(t, "SELECT COALESCE((SELECT status FROM saga_waiting WHERE id = $1::bigint), 'gone')", number)
	}

	one := url.Values{"service": {"order"}, "saga": {"order"}, "key": {"o3"}, "waiting": {failed}, "status": {"failed"}}
	s.want("act/retry-waiting?"+one.Encode(), "Retry 1 waiting event", "payment.received", "no such article", "Reason")
	if code, text, _ := s.post("act/retry-waiting", one); code != http.StatusUnprocessableEntity || !strings.Contains(text, "Say why") {
		t.Errorf("without a reason: %d %s", code, text)
	}
	one.Set("reason", "the article is there now")
	code, text, header := s.post("act/retry-waiting", one)
	if code != http.StatusSeeOther || status(failed) != "retry" {
		t.Fatalf("%d %s; it is %s", code, text, status(failed))
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 waiting event made due", "Saga order o3")

	// It is not failed any more, so that nobody discards it by an old form.
	if code, _, header := s.post("act/discard-waiting", one); code != http.StatusSeeOther || status(failed) != "retry" {
		t.Errorf("what has changed: %d; it is %s", code, status(failed))
	} else {
		s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "Nothing was changed")
	}
	s.want("act/discard-waiting?"+one.Encode(), "Nothing matches any more")

	all := url.Values{"service": {"order"}, "reason": {"nobody needs them"}}
	s.want("act/discard-waiting?"+all.Encode(), "Discard 2 waiting events of more", "At most 2", "all waiting events of the service", "can't be undone")
	all.Set("shown", "2")
	for range 2 {
		if code, text, _ := s.post("act/discard-waiting", all); code != http.StatusSeeOther {
			t.Errorf("all: %d %s", code, text)
		}
	}
	if left := service.Value(t, "SELECT string_agg(status, ' ' ORDER BY id) FROM saga_waiting"); left != "waiting retry" {
		t.Errorf("%s are left", left)
	}

	number := url.Values{"service": {"order"}, "waiting": {early}, "status": {"waiting"}, "reason": {"the order is closed"}}
	if code, text, _ := s.post("act/discard-waiting", number); code != http.StatusSeeOther || status(early) != "gone" {
		t.Errorf("one that waits: %d %s", code, text)
	}
	for _, bad := range []string{"status=waiting", "waiting=x", "waiting=0", "waiting=1&status=x"} {
		if code, text, _ := s.get("act/discard-waiting?service=order&" + bad); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, code, text)
		}
	}
	s.want("audit", "ann", "waiting.retry", "waiting.discard", "nobody needs them")
}

func TestActionsOnWaitingEventsNeedThePermission(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	failed := service.Wait(t, "o3", "failed", "no such article")
	s := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob", Actions: []console.Action{console.Retry, console.RetryWaiting}})}, service)
	for _, page := range []string{"waiting", "saga?service=order&name=order&key=o3"} {
		if text := s.want(page, "Retry…"); strings.Contains(text, "Discard") || strings.Contains(text, "Apply") {
			t.Errorf("%s offers what bob may not do", page)
		}
	}
	form := url.Values{"service": {"order"}, "waiting": {failed}, "reason": {"because"}}
	if status, text, _ := s.get("act/discard-waiting?" + form.Encode()); status != http.StatusForbidden {
		t.Errorf("the form: %d %s", status, text)
	}
	if status, text, _ := s.post("act/discard-waiting", form); status != http.StatusForbidden || !strings.Contains(html.UnescapeString(text), "The attempt was recorded") {
		t.Errorf("%d %s", status, text)
	}
	if n := service.Value(t, "SELECT count(*) FROM saga_waiting"); n != "1" {
		t.Errorf("%s are left", n)
	}
	s.want("audit?denied=yes", "bob", "waiting.discard", "refused")
}
