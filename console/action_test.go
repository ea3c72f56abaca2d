package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// An event that waits for a predecessor which nobody has is handled without it, once somebody says so.
func TestAcceptGap(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	gap := service.Gap(t)
	s := serve(t, console.Config{}, service)
	form := url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {gap.String()}}
	s.want("streams", "Accept the gap…", "act/accept-gap?consumer=billing&event="+gap.String()+"&service=order")
	s.want("act/accept-gap?"+form.Encode(), "Accept the gap", gap.String(), "Reason", "can't be undone", `class="danger"`)
	if status, text, _ := s.post("act/accept-gap", form); status != http.StatusUnprocessableEntity || !strings.Contains(text, "Say why") {
		t.Errorf("without a reason: %d %s", status, text)
	}
	form.Set("reason", "the old service is gone")
	status, text, header := s.post("act/accept-gap", form)
	if status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, text)
	}
	if reason := service.Value(t, "SELECT reason || ' ' || (next_at <= now()) FROM parked WHERE event_id = $1", gap); reason != "retry true" {
		t.Errorf("it is %s", reason)
	}
	s.want(strings.TrimPrefix(header.Get("Location"), prefix+"/"), "1 gap accepted")
	s.want("audit", "ann", "gap.accept", "the old service is gone", gap.String())

	s.want("act/accept-gap?"+form.Encode(), "Nothing matches any more")
	if status, text, _ := s.post("act/accept-gap", form); status != http.StatusConflict {
		t.Errorf("a second time: %d %s", status, text)
	}
	form.Set("event", service.Followed.String()) // it waits behind a dead letter
	if status, text, _ := s.post("act/accept-gap", form); status != http.StatusConflict {
		t.Errorf("not the first: %d %s", status, text)
	}
	if status, _, _ := s.get("act/accept-gap?service=order&event=" + gap.String()); status != http.StatusBadRequest {
		t.Errorf("without a consumer: status %d", status)
	}
}

func TestAcceptGapNeedsThePermission(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	gap := service.Gap(t)
	s := serve(t, console.Config{Authorize: as(console.Viewer{Name: "bob", Actions: []console.Action{console.Retry}})}, service)
	if text := s.want("streams"); strings.Contains(text, "Accept the gap") {
		t.Error("the page offers it")
	}
	form := url.Values{"service": {"order"}, "consumer": {"billing"}, "event": {gap.String()}, "reason": {"because"}}
	if status, text, _ := s.post("act/accept-gap", form); status != http.StatusForbidden || !strings.Contains(text, "The attempt was recorded") {
		t.Errorf("%d %s", status, text)
	}
	if reason := service.Value(t, "SELECT reason FROM parked WHERE event_id = $1", gap); reason != "gap" {
		t.Errorf("it is %s", reason)
	}
	s.want("audit?denied=yes", "bob", "gap.accept", "refused", gap.String())
}

// A group is retried at the rate that the form has, for a bounded time; then the form of what is left is shown.
func TestRetryAtARate(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 40)
	s := serve(t, console.Config{}, service)
	form := url.Values{"service": {"order"}, "consumer": {"mailing"}, "shown": {"40"}, "reason": {"the mailbox is bigger"}}
	s.want("act/retry?"+form.Encode(), "per second", "for 30 s at most")
	retried := func() string {
		return service.Value(t, "SELECT count(*) FROM parked WHERE consumer = 'mailing' AND reason = 'retry'")
	}
	for _, rate := range []string{"0", "-1", "many", "NaN", "Inf", "1e400", "<b>"} {
		form.Set("rate", rate)
		if status, text, _ := s.post("act/retry", form); status != http.StatusUnprocessableEntity || !strings.Contains(text, "Give the rate") || strings.Contains(text, "<b>\"") {
			t.Errorf("%s: %d %s", rate, status, text)
		}
	}
	if n := retried(); n != "0" {
		t.Fatalf("%s are retried", n)
	}

	form.Set("rate", "0.1") // 3 in the time that an action has, the first of them at once
	began := time.Now()
	answered := make(chan string, 1)
	go func() {
		_, _, header := s.post("act/retry", form)
		answered <- header.Get("Location")
	}()
	poll.Within(t, 10*time.Second, "one is retried", func() bool { return retried() == "1" })
	next := strings.TrimPrefix(<-answered, prefix+"/")
	if took := time.Since(began); retried() != "3" || took < 15*time.Second {
		t.Errorf("%s were retried in %v", retried(), took)
	}
	s.want(next, "3 dead letters made due", "what is left is below", "Retry 37 dead letters", `name="rate" class="number" value="0.1"`)

	form.Set("shown", "37")
	form.Set("rate", "1000")
	if status, text, header := s.post("act/retry", form); status != http.StatusSeeOther || !strings.HasPrefix(header.Get("Location"), prefix+"/dead?") {
		t.Errorf("%d %s %v", status, text, header)
	}
	if n := retried(); n != "40" {
		t.Errorf("%s are retried", n)
	}
}
