package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
)

// sagaJSON is the part of the JSON of a saga that tests look at.
type sagaJSON struct {
	State      string
	FinishedAt time.Time `json:"finished_at"`
	Data       json.RawMessage
	History    []struct{ To string }
	Waiting    []struct{ Status operate.WaitingStatus }
}

// A saga is shown with its data, deadline and history.
func TestInspectSagaShowsItsHistory(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedSaga(t, "4711", true)
	s.seedSaga(t, "4712", false)
	for _, c := range []struct{ line, want string }{
		{"inspect saga 4711", `
saga order (version 1)
key 4711
state paid
revision 2
started TIME (SPAN ago)
changed TIME (SPAN ago)
finished TIME (SPAN ago)
data
  {
    "cents": 40
  }
history
  REVISION TRANSITION CAUSE EVENT AT AFTER
  1 → open saga.begin - TIME -
  2 open → paid payment.received - TIME SPAN`},
		{"inspect saga 4712 --name order", `
saga order (version 1)
key 4712
state open
revision 1
started TIME (SPAN ago)
changed TIME (SPAN ago)
finished -
deadline open at TIME (in SPAN)
data
  {
    "cents": 100
  }
history
  REVISION TRANSITION CAUSE EVENT AT AFTER
  1 → open saga.begin - TIME -`},
	} {
		code, stdout, stderr := s.rf(c.line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", c.line, code, stderr)
		}
		wantLines(t, c.line, stdout, c.want)
	}
	for line, want := range map[string]string{
		"inspect saga 4713":                `schema "SCHEMA" has no saga with key "4713"`,
		"inspect saga 4711 --name payment": `schema "SCHEMA" has no saga "payment" with key "4711"`,
	} {
		if code, _, stderr := s.rf(line); code != exitFailure || stderr != "rocketflow: "+want+"\n" {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
	}
	var list []sagaJSON
	s.json(t, "inspect saga 4711", &list)
	if len(list) != 1 || list[0].State != "paid" || string(list[0].Data) == "" || len(list[0].History) != 2 || list[0].FinishedAt.IsZero() {
		t.Errorf("JSON: %+v", list)
	}
}

// The saga that has been in its state for the longest time is named, also one with a deadline.
func TestInspectSagasNamesTheOldest(t *testing.T) {
	t.Parallel()
	s := seed(t)
	if _, stdout, _ := s.rf("inspect sagas"); stdout != "no saga runs\n" {
		t.Errorf("got %s", stdout)
	}
	for _, key := range []string{"4711", "4712", "4713"} {
		s.seedSaga(t, key, false)
	}
	s.exec(t, "UPDATE saga SET changed_at = changed_at - interval '1 hour' WHERE key = '4712'")
	_, stdout, _ := s.rf("inspect sagas")
	wantLines(t, "inspect sagas", stdout, `
SAGA STATE RUNNING LONGEST IN STATE KEY OF THAT ONE
order open 3 SPAN 4712`)
	var list []operate.RunningSagas
	s.json(t, "inspect sagas", &list)
	if len(list) != 1 || list[0].OldestKey != "4712" || list[0].Sagas != 3 {
		t.Errorf("JSON: %+v", list)
	}
}

func (s *seeded) json(t *testing.T, line string, v any) {
	t.Helper()
	code, stdout, stderr := runLine(line + " --json --schema " + s.schema)
	if code != exitOK {
		t.Errorf("%s: exit code %d: %s", line, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		t.Errorf("%s: %v in\n%s", line, err, stdout)
	}
}

// An event is shown with its state in the outbox and in each consumer.
func TestInspectEventShowsItsStates(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	head := func(rest string) string { // of an event of the stream
		return "type order.changed\ntopic orders\nsource shop\nsubject 4711\n" + rest +
			"\nrecorded TIME (SPAN ago)\ncontent application/json, 11 bytes\n"
	}
	for _, c := range []struct {
		id    uuid.UUID
		flags string
		want  string
	}{
		{e.first.ID, " --body", "event E1\n" + head("sequence S1, the first of its stream") + `outbox acknowledged by the broker TIME (SPAN after it was recorded)
body
  {
    "cents": 1
  }
consumers
  CONSUMER STATE DETAIL
  billing handled position S1
  mailing not seen the consumer began to read the topic later, TIME`},
		{e.poison.ID, "", "event E2\n" + head("sequence S2, after S1") + `outbox acknowledged by the broker TIME (SPAN after it was recorded)
consumers
  CONSUMER STATE DETAIL
  billing dead parked SPAN ago, 1 failed attempt, last error: no such article: \x1b[31m8
  mailing not seen the consumer began to read the topic later, TIME`},
		{e.follower.ID, "", "event E3\n" + head("sequence S3, after S2") + `outbox owed for SPAN
consumers
  CONSUMER STATE DETAIL
  billing gap parked SPAN ago, behind E2 (dead)
  mailing not seen the consumer began to read the topic later, TIME`},
		{e.loose.ID, "", `event L1
outbox not in that of this schema
consumers
  CONSUMER STATE DETAIL
  billing handled TIME`},
		{e.bad.ID, "", `event L2
type order.seen
topic orders
source shop
subject -
sequence - (not ordered)
recorded TIME (SPAN ago)
content application/json, 11 bytes
outbox not in that of this schema
consumers
  CONSUMER STATE DETAIL
  billing dead parked SPAN ago, 1 failed attempt, last error: no such article: \x1b[31m8
  mailing not seen the consumer began to read the topic later, TIME`},
	} {
		code, stdout, stderr := s.rf("inspect event " + c.id.String() + c.flags)
		if code != exitOK {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		wantLines(t, "inspect event", stdout, c.want)
	}
	if code, _, stderr := s.rf("inspect event " + uuid.NewString()); code != exitFailure || !strings.Contains(stderr, `schema "SCHEMA" has no record of event`) {
		t.Errorf("unknown: got %d, %s", code, stderr)
	}
	if code, _, stderr := s.rf("inspect event 4711"); code != exitUsage || !strings.Contains(stderr, "want a UUID") {
		t.Errorf("no id: got %d, %s", code, stderr)
	}
	var report struct {
		Subject   string
		InOutbox  bool `json:"in_outbox"`
		Body      struct{ Cents int }
		Consumers []struct {
			State  string
			Parked *struct {
				Behind *struct {
					EventID uuid.UUID `json:"event_id"`
				}
			}
		}
	}
	s.json(t, "inspect event --body "+e.follower.ID.String(), &report)
	if report.Subject != "4711" || !report.InOutbox || report.Body.Cents != 1 || len(report.Consumers) != 2 ||
		report.Consumers[0].State != "gap" || report.Consumers[0].Parked.Behind.EventID != e.poison.ID || report.Consumers[1].State != "not_seen" {
		t.Errorf("JSON: %+v", report)
	}
}

// An event is shown with what says how to read it, why the broker rejects it, and who discarded it.
func TestInspectEventShowsSchemaExtensionsAndDiscard(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.reject(t, e)
	s.exec(t, `UPDATE outbox SET headers = '{"CE_dataschema": "https://shop.example/order/1", "CE_region": "eu"}' WHERE id = $1`, e.follower.ID)
	line := "inspect event " + e.follower.ID.String()
	want := func(lines ...string) {
		t.Helper()
		code, stdout, stderr := s.rf(line)
		for _, l := range lines {
			if code != exitOK || !strings.Contains(stdout, l+"\n") {
				t.Errorf("exit code %d: %s%s, want the line %q", code, stdout, stderr, l)
			}
		}
	}
	want("schema https://shop.example/order/1", "extension region: eu",
		`rejected 1 time by the broker since TIME (SPAN ago): message \x1b[31mtoo large`)
	if code, _, stderr := s.rf("owed discard --all --yes --reason wrong"); code != exitOK {
		t.Fatal(stderr)
	}
	want("type rocketflow.discarded", "discarded TIME (SPAN ago), of type order.changed: wrong")
	var report struct {
		Discarded *struct{ Type, Reason string }
	}
	s.json(t, line, &report)
	if report.Discarded == nil || report.Discarded.Type != "order.changed" || report.Discarded.Reason != "wrong" {
		t.Errorf("JSON: %+v", report)
	}
}

// An event behind a gap is shown with the sequence that it waits for.
func TestInspectEventNamesTheMissingPredecessor(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.exec(t, "DELETE FROM parked WHERE event_id = $1", e.poison.ID) // it never came
	s.exec(t, "UPDATE parked SET reason = 'gap', next_at = now() + interval '1 minute' WHERE event_id = $1", e.follower.ID)
	_, stdout, _ := s.rf("inspect event " + e.follower.ID.String())
	if !strings.Contains(stdout, "billing gap waits for sequence S2, position is S1, parked SPAN ago, next in SPAN\n") {
		t.Errorf("gap:\n%s", stdout)
	}
	_, stdout, _ = s.rf("inspect event " + e.poison.ID.String())
	if !strings.Contains(stdout, "billing not seen position S1\n") {
		t.Errorf("not seen:\n%s", stdout)
	}
}

// A subject is shown with its streams, positions and parked events.
func TestInspectStreamShowsPositions(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedEvents(t)
	want := `published events, the newest first
  SOURCE TOPIC SEQUENCE EVENT TYPE RECORDED BROKER
  shop orders S3 E3 order.changed TIME owed for SPAN
  shop orders S2 E2 order.changed TIME acknowledged
  shop orders S1 E1 order.changed TIME acknowledged

positions of consumers
  CONSUMER SOURCE TOPIC POSITION BEHIND
  billing shop orders S1 2

parked events, in the order of their streams
  CONSUMER TOPIC SEQUENCE AFTER EVENT TYPE REASON ATTEMPTS PARKED NEXT LAST ERROR
  billing orders S2 S1 E2 order.changed dead 1 SPAN ago - no such article: \x1b[31m8
  billing orders S3 S2 E3 order.changed gap 0 SPAN ago - -`
	for _, line := range []string{"inspect stream 4711", "inspect stream 4711 --topic orders"} {
		code, stdout, stderr := s.rf(line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
		wantLines(t, line, stdout, want)
	}
	for line, want := range map[string]int{
		"inspect stream 4712":                  exitFailure,
		"inspect stream 4711 --topic payments": exitFailure,
		"inspect stream 4711 --limit 0":        exitUsage,
	} {
		if code, _, stderr := s.rf(line); code != want {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
	}
	// What is past retention leaves the sequence; elsewhere published streams leave the position.
	s.exec(t, "TRUNCATE outbox, parked")
	s.exec(t, "INSERT INTO position VALUES ('billing', 'till', 'payments', '4711', 7)")
	_, stdout, _ := s.rf("inspect stream 4711")
	wantLines(t, "after retention", stdout, `published events, the newest first
  SOURCE TOPIC SEQUENCE EVENT TYPE RECORDED BROKER
  shop orders S3 - - - -

positions of consumers
  CONSUMER SOURCE TOPIC POSITION BEHIND
  billing shop orders S1 0
  billing till payments 7 -`)
}

// The backlog counts what is owed, parked and armed; the timeouts are listed.
func TestInspectBacklogCountsAll(t *testing.T) {
	t.Parallel()
	s := seed(t)
	wantReport := func(line, want string) {
		t.Helper()
		code, stdout, stderr := s.rf(line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
		wantLines(t, line, stdout, want)
	}
	wantReport("inspect backlog", `owed events (the sweep's watermark moved SPAN ago)
  none
parked events
  none
timeouts
  armed 0
  next due -
  overdue 0`)
	wantReport("inspect timeouts", "no armed timeouts")

	s.seedEvents(t)
	s.seedSaga(t, "4711", false)
	overdue := uuid.New()
	s.names = append(s.names, overdue.String(), "T1")
	s.exec(t, `INSERT INTO timeout (key, name, epoch, due_at, handed_over, next_sweep_at, source, topic, type, subject, content_type, body)
		VALUES ('4712', 'reminder', $1, $2, true, now(), 'shop', 'orders', 'order.forgotten', '4712', 'application/json', '')`,
		overdue, time.Now().Add(-3*time.Hour))
	var deadline uuid.UUID
	if err := s.pool.QueryRow(t.Context(), "SELECT epoch FROM timeout WHERE name = 'open'").Scan(&deadline); err != nil {
		t.Fatal(err)
	}
	s.names = append(s.names, deadline.String(), "T2")
	wantReport("inspect backlog", `owed events (the sweep's watermark moved SPAN ago)
  TOPIC EVENTS OLDEST
  orders 1 TIME (SPAN ago)
parked events
  CONSUMER REASON EVENTS OLDEST NEXT ATTEMPT
  billing dead 2 TIME (SPAN ago) -
  billing gap 1 TIME (SPAN ago) -
timeouts
  armed 2
  next due TIME (in SPAN)
  overdue 1, the oldest since TIME (SPAN ago)`)
	wantReport("inspect timeouts", `KEY NAME DUE AT THE BROKER EVENT TYPE TOPIC
4712 reminder TIME overdue for SPAN yes T1 order.forgotten orders
order/4711 open TIME in SPAN no T2 saga.deadline.order timeouts`)
	wantReport("inspect timeouts order/4711", `KEY NAME DUE AT THE BROKER EVENT TYPE TOPIC
order/4711 open TIME in SPAN no T2 saga.deadline.order timeouts`)
	wantReport("inspect timeouts nobody", "no armed timeouts")
	var b struct {
		Owed     []struct{ Events int }
		Parked   []struct{ Reason string }
		Timeouts struct{ Armed, Overdue int }
	}
	s.json(t, "inspect backlog", &b)
	if len(b.Owed) != 1 || b.Owed[0].Events != 1 || len(b.Parked) != 2 || b.Timeouts.Armed != 2 || b.Timeouts.Overdue != 1 {
		t.Errorf("JSON: %+v", b)
	}
}

// A command on a schema without tables names the schemas that have them; without a database, the failed connection.
func TestSchemaWithoutTables(t *testing.T) {
	t.Parallel()
	s := seed(t) // so that there is a schema to be named
	for _, line := range []string{"inspect backlog", "inspect saga 4711", "redrive list", "redrive retry --all"} {
		code, _, stderr := runLine(line + " --schema none_" + s.schema)
		if code != exitFailure || !strings.Contains(stderr, "run `rocketflow migrate up`; or set --schema: this database has ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
		code, _, stderr = runLine(line + " --database-url=postgres://127.0.0.1:1/none?connect_timeout=5")
		if code != exitFailure || !strings.Contains(stderr, "connect to Postgres") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s without a database: got %d, %s", line, code, stderr)
		}
	}
}
