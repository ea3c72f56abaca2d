package main

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// seedWaiting inserts events that wait for sagas of a key, one of each status.
func (s *seeded) seedWaiting(t *testing.T, key string) (ids []string) {
	t.Helper()
	for _, w := range []struct{ saga, status, state, err string }{
		{"order", "waiting", "open", ""}, {"order", "failed", "open", "no such\n\x1b[31marticle"}, {"order", "expired", "open", ""}, {"loyalty", "waiting", "", ""},
	} {
		id := uuid.NewString()
		ids = append(ids, id)
		s.names = append(s.names, id, "W-"+w.saga+"-"+w.status)
		s.exec(t, `INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, last_error, event_id, source, topic, type, subject,
				sequence, previous, recorded_at, database, content_type, body)
			VALUES ($1, $2, $3, $4 <> '', $4, 'infinity', now() + interval '1 day', $5, $6, 'shop', 'parcels', 'parcel.shipped', $2, 0, 0, now(), '', 'application/json', '{}')`,
			w.saga, key, w.status, w.state, w.err, id)
	}
	return ids
}

// Waiting events are shown with their saga, and can be retried or discarded.
func TestSagaRetriesAndDiscardsWaitingEvents(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedSaga(t, "4711", false)
	ids := s.seedWaiting(t, "4711")
	want := func(line, want string) {
		t.Helper()
		code, stdout, stderr := s.rf(line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
		wantLines(t, line, stdout, want)
	}
	refused := func(line, want string) {
		t.Helper()
		if code, _, stderr := s.rf(line); code != exitUsage {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
	}
	want("inspect saga 4711", `
saga order (version 1)
key 4711
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
  1 → open saga.begin - TIME -
waiting events (retry or discard them with rocketflow saga)
  STATUS TYPE EVENT CAME IN STATE UNTIL ATTEMPTS ERROR
  waiting parcel.shipped W-order-waiting TIME (SPAN ago) open in SPAN 0 -
  failed parcel.shipped W-order-failed TIME (SPAN ago) open - 0 no such \x1b[31marticle
  expired parcel.shipped W-order-expired TIME (SPAN ago) open in SPAN 0 -

saga loyalty (not begun)
key 4711
waiting events (retry or discard them with rocketflow saga)
  STATUS TYPE EVENT CAME IN STATE UNTIL ATTEMPTS ERROR
  waiting parcel.shipped W-loyalty-waiting TIME (SPAN ago) - in SPAN 0 -`)
	want("inspect saga 4711 --name loyalty", `
saga loyalty (not begun)
key 4711
waiting events (retry or discard them with rocketflow saga)
  STATUS TYPE EVENT CAME IN STATE UNTIL ATTEMPTS ERROR
  waiting parcel.shipped W-loyalty-waiting TIME (SPAN ago) - in SPAN 0 -`)
	var reports []sagaJSON
	_, out, _ := runLine("inspect saga 4711 --json --schema " + s.schema)
	if err := json.Unmarshal([]byte(out), &reports); err != nil || len(reports) != 2 || len(reports[0].Waiting) != 3 || reports[0].Waiting[1].Status != operate.WaitingFailed {
		t.Errorf("got %+v, %v", reports, err)
	}
	refused("saga discard 4711", "confirm with --yes")
	refused("saga retry 4711 --event x", "not the id")
	refused("saga retry 4711 --name=", "is empty")
	want("saga retry 4711", "retried 2 waiting events")
	want("saga retry 4711", "retried 0 waiting events")
	want("saga discard 4711 --yes", "discarded 0 waiting events")
	want("saga discard 4711 --yes --event "+ids[3], "discarded 1 waiting event")
	var left int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM saga_waiting WHERE status IN ('waiting', 'retry') AND key = '4711'").Scan(&left); err != nil || left != 3 {
		t.Errorf("%d left, %v", left, err)
	}
}

// A stuck timeout is marked in the list.
func TestInspectTimeoutsMarksStuckOnes(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedSaga(t, "4711", false)
	s.exec(t, "UPDATE timeout SET due_at = now() - interval '50 h', sends = 17, stuck_at = now()")
	var id string
	if err := s.pool.QueryRow(t.Context(), "SELECT epoch::text FROM timeout").Scan(&id); err != nil {
		t.Fatal(err)
	}
	s.names = append(s.names, id, "T1")
	_, stdout, _ := s.rf("inspect timeouts")
	wantLines(t, "inspect timeouts", stdout, `KEY NAME DUE AT THE BROKER EVENT TYPE TOPIC
order/4711 open TIME overdue for SPAN, sent 17 times, stuck no T1 saga.deadline.order timeouts`)
}

// An event is applied to a running saga, after a confirmation.
func TestSagaApply(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedSaga(t, "4711", false)
	const paid = "saga apply 4711 --name order --topic payments --type payment.received --subject p-1"
	for line, want := range map[string]int{
		"saga apply 4711 --name order --topic payments --yes": exitUsage, paid: exitUsage, paid + " --wait 0s --yes": exitUsage,
		"saga apply 4712 --name order --topic payments --type payment.received --yes": exitFailure,
	} {
		if code, _, stderr := s.rf(line); code != want {
			t.Errorf("%s: %d %s", line, code, stderr)
		}
	}
	var done struct {
		EventID uuid.UUID `json:"event_id"`
	}
	s.json(t, paid+" --yes --by maria --reason ticket-7", &done)
	o := testoperator.New(t, s.pool, s.schema)
	list, err := o.WaitingEvents(t.Context(), operate.WaitingFilter{Saga: "order", Key: "4711"})
	if err != nil || len(list) != 1 || list[0].Event.ID != done.EventID || list[0].Event.Subject != "p-1" || !list[0].Begun || list[0].State != "open" {
		t.Errorf("waiting: %+v, %v", list, err)
	}
	audit, err := o.Audit(t.Context(), operate.AuditFilter{ID: done.EventID.String()})
	if err != nil || len(audit) != 1 || audit[0].Action != operate.ActionApplyToSaga || audit[0].Reason != "ticket-7" {
		t.Errorf("audit: %+v, %v", audit, err)
	}
}
