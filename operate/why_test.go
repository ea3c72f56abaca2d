package operate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// wantVerdict fails unless the verdict is in a state and has all parts.
func wantVerdict(t *testing.T, v operate.Verdict, state operate.VerdictState, parts ...string) {
	t.Helper()
	text := strings.Join([]string{v.What, v.For, v.Because, v.Command}, "; ")
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("the verdict lacks %q: %+v", p, v)
		}
	}
	if v.State != state {
		t.Errorf("the verdict is %s, want %s: %+v", v.State, state, v)
	}
}

// A key may look like the id of an event. That operators have touched it doesn't make it one.
func TestWhyOfAKeyThatIsAUUID(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	order, unknown := uuid.NewString(), uuid.NewString()
	b.consumer("bills", "order.placed")
	b.publish("order.placed", order, 2, 10*time.Minute)
	b.exec("INSERT INTO stream (source, topic, subject, previous, sequence) VALUES ('shop', 'orders', $1, 1, 2)", order)
	o := b.operator(nil)
	for _, subject := range []string{order, unknown} {
		if _, err := o.Pause(operate.WithActor(t.Context(), operate.Actor{Name: "maria"}), operate.PauseTarget{Kind: operate.PauseStream, Consumer: "bills", Topic: "orders", Subject: subject}); err != nil {
			t.Fatal(err)
		}
	}
	why := explainer(t, o)
	x := why(order)
	if x.Kind != operate.ExplainsKey || !hasLine(x, "published order.placed") || !hasLine(x, "operator maria paused") {
		t.Errorf("%+v", x)
	}
	wantVerdict(t, x.Verdict, operate.VerdictStopped, "to resume")
	wantVerdict(t, why(unknown).Verdict, operate.VerdictUnknown, "only what operators did is recorded")
}

// A saga may have another key than the subject of its events: what failed in it is found by the event's id.
func TestWhyOfAnEventThatASagaOfAnotherKeyHolds(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.consumer("sagas", "order.placed", "order.seen")
	for eventType, subject := range map[string]string{"order.placed": "4711", "order.seen": ""} {
		id := b.publish(eventType, subject, 1, time.Duration(10+len(subject))*time.Minute)
		b.handled("sagas")
		b.exec("INSERT INTO position (consumer, source, topic, subject, sequence) VALUES ('sagas', 'shop', 'orders', '4711', 1) ON CONFLICT DO NOTHING")
		b.exec(`INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, last_error, event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, body)
			VALUES ('purchase', 'customer 7', 'failed', true, 'open', 'infinity', now(), 'no such account', $1, 'shop', 'orders', $2, $3, 0, 0, now(), '', '', 'a body')`, id, eventType, subject)
		x := explainer(t, b.operator(nil))(id.String())
		wantVerdict(t, x.Verdict, operate.VerdictStopped, "no such account", "rocketflow saga retry 'customer 7' --event "+id.String())
	}
}

// By an order's number as by the event's id it is said that the broker rejects an event, and what is owed names the oldest.
func TestWhyOfAKeyWithRejectedAndOwedEvents(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	id := b.publish("order.placed", "4711", 1, 10*time.Minute)
	b.exec("INSERT INTO stream (source, topic, subject, previous, sequence) SELECT 'shop', topic, '4711', 0, 9 FROM unnest(ARRAY['bills', 'orders', 'parcels']) AS t (topic)")
	b.exec(`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		SELECT gen_random_uuid(), 'shop', topic, 'other', '4711', 9, 0, now() - age, '', '' FROM (VALUES ('bills', interval '2 hours'), ('parcels', interval '1 hour')) AS v (topic, age)`)
	b.exec("DELETE FROM outbox_ack")
	b.exec("INSERT INTO outbox_rejected (id, topic, reason, attempts, next_at) VALUES ($1, 'orders', 'too large', 3, now())", id)
	b.publish("order.changed", "4711", 60, 5*time.Minute) // which hide the one before
	b.exec("INSERT INTO lease (name, holder, expires_at) VALUES ('outbox sweep', gen_random_uuid(), now() + interval '1 hour')")
	x := explainer(t, b.operator(nil))("4711")
	wantVerdict(t, x.Verdict, operate.VerdictStopped, "the broker to accept it", "too large", "rocketflow owed retry --event "+id.String())
	if !hasLine(x, "rejected by the broker 3 times: too large") {
		t.Errorf("%+v", x.Timeline)
	}
	b.exec("UPDATE outbox SET subject = 'no order', sequence = 0 WHERE id = $1", id)
	wantVerdict(t, explainer(t, b.operator(nil))("no order").Verdict, operate.VerdictStopped, "too large")
	if len(x.Also) == 0 {
		t.Fatal("it says nothing of what is owed")
	}
	wantVerdict(t, x.Also[0], operate.VerdictWaiting, "confirmation of 2 events")
	if age := x.Now.Sub(x.Also[0].Since).Round(time.Minute); age != 2*time.Hour {
		t.Errorf("the oldest is owed for %v", age)
	}
}

// Many parked events of one consumer don't hide the dead letter of another, nor those without order that of a stream.
func TestWhyOfAKeyNamesEachDeadLetter(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	park := func(consumer, reason string, sequence, events int) {
		b.exec(`INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name, content_type, body)
			SELECT $1, gen_random_uuid(), $2, 1, 'infinity', 'error of ' || $1 || $3::int::text, 'shop', 'orders', 'x', '4711', CASE WHEN $3 = 0 THEN 0 ELSE $3 + n END, 0, now(), '', '', '', '', ''
			FROM generate_series(1, $4) n`, consumer, reason, sequence, events)
	}
	park("a", "gap", 10, 300)
	park("b", "retry", 0, 60)
	park("b", "dead", 10, 1)
	x := explainer(t, b.operator(nil))("4711")
	wantVerdict(t, x.Verdict, operate.VerdictStopped, "--consumer")
	texts := ""
	for _, v := range append(x.Also, x.Verdict) {
		texts += v.Because + "\n"
	}
	if !strings.Contains(texts, "error of b10") {
		t.Errorf("the dead letter of b isn't named:\n%s", texts)
	}
	s, err := b.operator(nil).SubjectStatus(t.Context(), operate.SubjectFilter{Subject: "4711", Limit: 500})
	if err != nil || len(s.Parked) != 361 {
		t.Errorf("%d parked (%v), want all", len(s.Parked), err)
	}
}

// An event without which its stream went on is not done: it is said who accepted the gap.
func TestWhyOfAnEventThatWasPassedOver(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.consumer("bills", "order.placed", "order.seen")
	b.publish("order.placed", "4711", 3, 10*time.Minute)
	var ids []uuid.UUID
	if err := b.pool.QueryRow(t.Context(), "SELECT array_agg(id ORDER BY sequence) FROM outbox").Scan(&ids); err != nil {
		t.Fatal(err)
	}
	b.exec("INSERT INTO position (consumer, source, topic, subject, sequence) VALUES ('bills', 'shop', 'orders', '4711', 1)")
	b.exec(`INSERT INTO parked (consumer, event_id, reason, next_at, source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name, content_type, body)
		VALUES ('bills', $1, 'gap', 'infinity', 'shop', 'orders', 'order.placed', '4711', 3, 2, now(), '', '', '', '', '')`, ids[2])
	o := b.operator(nil)
	if err := o.AcceptGap(operate.WithActor(t.Context(), operate.Actor{Name: "maria", Reason: "it is gone"}), "bills", ids[2]); err != nil {
		t.Fatal(err)
	}
	b.exec("DELETE FROM parked")
	b.exec("UPDATE position SET sequence = 3, skipped = '{1,3}'")
	why := explainer(t, o)
	x := why(ids[1].String())
	wantVerdict(t, x.Verdict, operate.VerdictStopped, "bills has to handle it", "maria (it is gone) accepted the gap", "rocketflow resend --event "+ids[1].String())
	if !hasLine(x, "passed over", "maria") {
		t.Errorf("%+v", x.Timeline)
	}
	wantVerdict(t, why(ids[2].String()).Verdict, operate.VerdictDone)
	b.exec("DELETE FROM audit")
	wantVerdict(t, why(ids[1].String()).Verdict, operate.VerdictStopped, "an operator accepted the gap")
}

// A search in a long stream looks at a bounded number of events for each page.
func TestEventPageOfALongStream(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	const events = 5_300
	last := b.publish("order.placed", "4711", events, time.Hour)
	b.exec("INSERT INTO stream (source, topic, subject, previous, sequence) VALUES ('shop', 'orders', '4711', 1, $1)", events)
	b.exec("UPDATE outbox SET type = 'order.begun' WHERE sequence < 3")
	o := b.operator(nil)
	f := operate.EventPageFilter{Subject: "4711", Type: "order.begun"}
	p, err := o.EventPage(t.Context(), f)
	if err != nil || len(p.Events) != 0 || p.Next == "" || p.ScannedTo.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	f.After = p.Next
	if p, err = o.EventPage(t.Context(), f); err != nil || len(p.Events) != 2 || p.Next != "" {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = o.EventPage(t.Context(), operate.EventPageFilter{Subject: "4711", Limit: 10})
	if err != nil || len(p.Events) != 10 || p.Next == "" || !p.ScannedTo.IsZero() || p.Events[0].ID != last {
		t.Errorf("%+v, %v", p, err)
	}
	// Without a filter, all of it is paged through.
	seen := 0
	for f := (operate.EventPageFilter{Subject: "4711", Limit: 1000}); ; f.After = p.Next {
		if p, err = o.EventPage(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if seen += len(p.Events); p.Next == "" {
			break
		}
	}
	if seen != events {
		t.Errorf("%d events, want %d", seen, events)
	}
}

// Of a saga with a long history the newest transitions are read.
func TestSagaWithALongHistory(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.exec("INSERT INTO saga (name, key, version, state, data, revision) VALUES ('purchase', '4711', 1, 'open', '{}', 1200)")
	b.exec("INSERT INTO saga_history (name, key, revision, from_state, to_state, cause_type) SELECT 'purchase', '4711', n, 'open', 'open', 'x' FROM generate_series(1, 1200) n")
	list, err := b.operator(nil).Sagas(t.Context(), operate.SagaFilter{Key: "4711"})
	if err != nil || len(list) != 1 || len(list[0].Transitions) != 1000 || list[0].Transitions[0].Revision != 201 {
		t.Errorf("%v: %d sagas", err, len(list))
	}
}
