package testconsole

import (
	"net/url"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/console"
)

// Act is an action on a service, as somebody does it in the console.
type Act struct {
	Action console.Action
	Page   string            // that offers it
	Select url.Values        // of the address of its form, to which the page has a link
	Fill   map[string]string // what is typed into the form beside the reason, by the names of its fields
	Done   string            // an SQL expression that is true once it is done, and not before
}

// Form returns the address of the action's form.
func (a Act) Form() string { return "act/" + string(a.Action) + "?" + a.Select.Encode() }

// Acts adds what is needed for each action that changes rows of a service, and returns these actions. Resume follows Pause, and ends it.
// The name of the service in the console must be order.
func (s *Service) Acts(t testing.TB) []Act {
	t.Helper()
	s.Letters(t, 2)
	letter := s.Value(t, "SELECT event_id FROM parked WHERE consumer = 'mailing' ORDER BY event_id LIMIT 1")
	gap, large := s.Gap(t).String(), s.Reject(t, "order", 2).String()
	retried, discarded := s.Wait(t, "o3", "failed", "no such article"), s.Wait(t, "o6", "failed", "no such article")
	source := s.Value(t, "SELECT source FROM installation")
	first := s.event(t, source, "order.changed", "4714", time.Now().UnixMicro(), 0, true)
	s.park(t, first, "dead", 8, "no such article")
	ordered := first.String()
	of := func(pairs ...string) url.Values {
		v := url.Values{"service": {"order"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	timeout := func(key string) url.Values {
		return of("key", key, "name", "deadline", "event", s.Value(t, "SELECT epoch FROM timeout WHERE key = $1", key))
	}
	poison, loose, handled := s.Poison.String(), s.Loose.String(), s.Handled.String()
	paused := of("kind", "handler", "consumer", "billing", "topic", "orders", "type", "order.changed")
	isParked := func(event, is string) string {
		return "EXISTS (SELECT FROM parked WHERE event_id = '" + event + "' AND " + is + ")"
	}
	isAudited := func(action string) string {
		return "EXISTS (SELECT FROM audit WHERE action = '" + action + "' AND NOT denied)"
	}
	return []Act{
		{console.Retry, "letter?service=order&consumer=mailing&event=" + letter, of("consumer", "mailing", "event", letter), nil, isParked(letter, "reason = 'retry'")},
		{console.Edit, "letter?service=order&consumer=billing&event=" + poison, of("consumer", "billing", "event", poison, "source", source),
			map[string]string{"body": `{"article": 4712}`}, isParked(poison, "convert_from(body, 'UTF8') = '{\"article\": 4712}'")},
		{console.Discard, "letter?service=order&consumer=billing&event=" + loose, of("consumer", "billing", "event", loose), nil, "NOT " + isParked(loose, "true")},
		{console.Discard, "letter?service=order&consumer=billing&event=" + ordered, of("consumer", "billing", "event", ordered), nil, "NOT " + isParked(ordered, "true")},
		{console.AcceptGap, "streams", of("consumer", "billing", "event", gap), nil, isParked(gap, "reason = 'retry'")},
		{console.Resend, "why?id=" + handled, of("event", handled), nil, isAudited("events.resend")},
		{console.RetryRejected, "rejected?service=order", of("topic", "order"), nil, "(SELECT next_at <= now() FROM outbox_rejected_topic)"},
		{console.RedirectRejected, "rejected?service=order", of("topic", "orders", "event", large),
			map[string]string{"to": "parcels"}, "EXISTS (SELECT FROM outbox WHERE topic = 'parcels')"},
		{console.DiscardRejected, "rejected?service=order", of("topic", "order"), nil, "NOT EXISTS (SELECT FROM outbox_rejected WHERE topic = 'order')"},
		{console.ApplyEvent, "saga?service=order&name=order&key=o9", of("saga", "order", "key", "o9"),
			map[string]string{"topic": "payments", "type": "payment.received", "body": "{}"}, "EXISTS (SELECT FROM saga_waiting WHERE key = 'o9')"},
		{console.RetryWaiting, "waiting?service=order", of("waiting", retried, "status", "failed"), nil, "EXISTS (SELECT FROM saga_waiting WHERE key = 'o3' AND status = 'retry')"},
		{console.DiscardWaiting, "waiting?service=order", of("waiting", discarded, "status", "failed"), nil, "NOT EXISTS (SELECT FROM saga_waiting WHERE key = 'o6')"},
		{console.Pause, "consumers", paused, nil, "EXISTS (SELECT FROM pause)"},
		{console.Resume, "consumers", paused, nil, "NOT EXISTS (SELECT FROM pause)"},
		{console.FireTimeout, "timeouts?service=order", timeout("order/o10"), nil, "(SELECT due_at <= clock_timestamp() FROM timeout WHERE key = 'order/o10')"},
		{console.MoveTimeout, "timeouts?service=order", timeout("order/o11"),
			map[string]string{"at": "2051-02-03T10:11:12"}, "(SELECT due_at = '2051-02-03 10:11:12Z' FROM timeout WHERE key = 'order/o11')"},
		{console.DisarmTimeout, "timeouts?service=order", timeout("order/o12"), nil, "NOT EXISTS (SELECT FROM timeout WHERE key = 'order/o12')"},
	}
}
