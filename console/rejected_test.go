package console_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// Rejected events are listed by topic and one by one; the overview says that there are some.
func TestRejectedEventsAreListed(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	large := service.Reject(t, "order", 120)
	s := serve(t, console.Config{}, service)
	s.want("", "121 rejected", "needs action")
	s.want("rejected", "<b>120</b>", "no such topic", "with its topic", "Retry…", "Redirect…", "Discard…")
	if text := s.want("rejected?topic=orders", large.String(), "too large", "Retry all that match…"); strings.Contains(text, "r0") || strings.Contains(text, "<script>") || strings.Contains(text, "\u202e") {
		t.Error(text)
	}
	s.want("rejected?type=nothing", "Nothing matches")
	for _, page := range []string{"rejected?after=x", "rejected?after=WyJ4Il0"} {
		if status, text, _ := s.get(page); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", page, status, text)
		}
	}
	service.Exec(t, "DELETE FROM outbox_rejected")
	service.Exec(t, "DELETE FROM outbox_rejected_topic")
	poll.Within(t, 10*time.Second, "the page says that there are none", func() bool {
		_, text, _ := s.get("rejected")
		return strings.Contains(text, "The broker rejects no event")
	})
}

// Rejected events are retried, redirected and discarded: no more than were confirmed, and none that the broker has taken meanwhile.
func TestActionsOnRejectedEvents(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	large := service.Reject(t, "order", 4)
	s := serve(t, console.Config{MaxChange: 3}, service)
	act := func(action string, form url.Values, says ...string) {
		t.Helper()
		text := s.want("act/"+action+"?"+form.Encode(), append(says, "Reason")...)
		if shown := regexp.MustCompile(`name="shown" value="(\d+)"`).FindStringSubmatch(text); shown != nil {
			form.Set("shown", shown[1])
		}
		if status, text, _ := s.post("act/"+action, form); status != http.StatusUnprocessableEntity {
			t.Errorf("%s without a reason: %d %s", action, status, text)
		}
		form.Set("reason", "the topic has another name")
	}
	done := func(action string, form url.Values, says string) {
		t.Helper()
		status, text, header := s.post("act/"+action, form)
		if status != http.StatusSeeOther {
			t.Fatalf("%s: %d %s", action, status, text)
		}
		s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), says)
	}

	topic := url.Values{"service": {"order"}, "topic": {"order"}}
	act("retry-rejected", topic, "Retry 3 rejected events of more", "At most 3", "create the topic")
	done("retry-rejected", topic, "3 rejected events made due")
	if due := service.Value(t, "SELECT next_at <= clock_timestamp() FROM outbox_rejected_topic"); due != "true" {
		t.Error("its topic is not due")
	}

	one := url.Values{"service": {"order"}, "event": {large.String()}}
	act("discard-rejected", one, "Discard 1 rejected event", large.String(), "order.closed", "too large", "can't be undone", `class="danger"`)
	done("discard-rejected", one, "1 rejected event discarded")
	if got := service.Value(t, "SELECT type || ' ' || (convert_from(body, 'UTF8')::jsonb->>'reason') FROM outbox WHERE id = $1", large); got != "rocketflow.discarded the topic has another name" {
		t.Errorf("it became %s", got)
	}
	done("discard-rejected", one, "Nothing was changed")

	act("redirect-rejected", topic, "Redirect 3 rejected events", "To the topic")
	for _, to := range []string{"", "order", "no topic"} {
		topic.Set("to", to)
		if status, text, _ := s.post("act/redirect-rejected", topic); status != http.StatusUnprocessableEntity {
			t.Errorf("to %q: %d %s", to, status, text)
		}
	}
	// The broker takes one of them meanwhile.
	service.Exec(t, "INSERT INTO outbox_ack (id, path) SELECT id, 3 FROM outbox WHERE topic = 'order' ORDER BY id LIMIT 1")
	topic.Set("to", "orders")
	done("redirect-rejected", topic, "2 rejected events redirected")
	if n := service.Value(t, "SELECT count(*) FROM outbox WHERE topic = 'orders' AND subject LIKE 'r%' AND type = 'order.changed'"); n != "2" {
		t.Errorf("%s events have the new topic", n)
	}
	s.want("audit", "ann", "rejected.retry", "rejected.redirect", "rejected.discard", "the topic has another name", large.String())
	all := url.Values{"service": {"order"}}
	act("retry-rejected", all, "all rejected events of the service")
}

func TestActionsOnRejectedEventsNeedThePermission(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	large := service.Reject(t, "order", 2)
	s := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob", Bodies: true, Actions: []console.Action{console.RetryRejected}})}, service)
	if text := s.want("rejected", "Retry…"); strings.Contains(text, "Redirect") || strings.Contains(text, "Discard") {
		t.Error("the page offers what bob may not do")
	}
	form := url.Values{"service": {"order"}, "event": {large.String()}, "to": {"orders2"}, "reason": {"because"}}
	for action, audited := range map[string]string{"redirect-rejected": "rejected.redirect", "discard-rejected": "rejected.discard"} {
		if status, text, _ := s.get("act/" + action + "?" + form.Encode()); status != http.StatusForbidden {
			t.Errorf("%s: the form: %d %s", action, status, text)
		}
		if status, text, _ := s.post("act/"+action, form); status != http.StatusForbidden || !strings.Contains(html.UnescapeString(text), "The attempt was recorded") {
			t.Errorf("%s: %d %s", action, status, text)
		}
		s.want("audit?denied=yes&action="+audited, "bob", "refused", large.String())
	}
	if n := service.Value(t, "SELECT count(*) FROM outbox_rejected"); n != "3" {
		t.Errorf("%s are rejected", n)
	}
}
