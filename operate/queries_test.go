package operate

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Each statement of a report uses an index: no sequential scan is left where Postgres is set to avoid them.
func TestReportsReadByIndex(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	args := map[string][]any{
		"Now": {}, "ReportSettings": {"10s"}, "Schemas": {5}, "Usage": {10}, "Event": {uuid.NewString()}, "ParkedEvent": {uuid.NewString()}, "Discarded": {uuid.NewString()},
		"EventConsumers": {uuid.NewString(), "s", "t", "u", int64(1) << 40, 10},
		"Streams":        {"u", "", 10}, "Positions": {"u", "", 10, 10}, "ParkedInStream": {"u", "", 10, 10},
		"StreamEvents": {"u", []string{"s"}, []string{"t"}, 10},
		"SweepState":   {}, "OwedByTopic": {"0", []string{}, 10}, "ParkedByConsumer": {10, 10}, "TimeoutCounts": {10}, "WaitingBySaga": {10},
		"Horizon": {}, "EventEvidence": {uuid.NewString()}, "EventReaders": {uuid.NewString(), "s", "t", "u", int64(1) << 40, "y", 10, 10},
		"Beginning": {uuid.NewString(), time.Now()}, "PublishedByTransaction": {"5", uuid.NewString(), 10}, "HeldBack": {time.Now()}, "PublishedOf": {[]string{uuid.NewString()}},
		"PublishedByID": {uuid.NewString(), uuid.NewString(), time.Now(), time.Now(), "0", 10}, "Subscribers": {10}, "Groups": {10},
		"Judge":             {"c", "t", []string{uuid.NewString()}, []string{"s"}, []string{"u"}, []int64{1}},
		"ResendByID":        {uuid.NewString(), "", "", "", "", nil, nil, 10, 10, []string{uuid.NewString()}},
		"CausedTransitions": {[]string{"k"}, uuid.NewString()}, "PublishedWhileHandled": {uuid.NewString(), 10}, "ParkedBehind": {"c", "s", "t", "u", int64(1), 10}, "ServiceRuns": {}, "RunningSagas": {10, 10},
		"ServiceName": {}, "AckPaths": {10}, "SagaStates": {10, 10}, "SagasFinished": {3600.0, 10}, "ParkedStreamCount": {10}, "Consumers": {10, 10},
		"RecentlyHandled": {10, uuid.NewString()}, "RecentlyHandledInOrder": {10},
		"EventPage":          {uuid.NewString(), uuid.NewString(), "", "", "", "", 10, 10},
		"EventPageOfSubject": {uuid.NewString(), uuid.NewString(), "", "", "", "u", 10, int64(1) << 40, uuid.NewString(), 10},
		"WaitingOf":          {uuid.NewString(), "k", 10}, "RejectedOf": {"k", []string{uuid.NewString()}, 10, 10}, "EventAt": {"s", "t", "u", int64(1)},
		"DeadLetterGroups": {10, 10}, "ParkedGroups": {10, 10}, "EventsOut": {[]string{uuid.NewString()}, 10, 10}, "ParkedStreams": {"", "", "", "", 10, 10, ""}, "SagaPage": {"", "", "", "", nil, 10, 10},
		"SagaTransitions": {"n", 10, 10}, "TimeoutPage": {time.Now(), "", "", false, 10},
		"MoveTimeout": {"k", "n", "", uuid.NewString(), nil}, "DisarmTimeout": {"k", "n", ""},
		"EndedTimeout": {uuid.NewString()}, "EndedTimeouts": {"k", true, 10}, "ArmedByEvent": {uuid.NewString(), 10},
		"Audit":    {"maria", "", "", nil, nil, nil, 0, false, 10},
		"Pausable": {"c", "t", "y"}, "Pause": {"c", "handler", "t", "y", "", "maria", ""}, "Resume": {"c", "handler", "t", "y", ""}, "Paused": {"", 10, 10},
		"RecordAudit":  {uuid.NewString(), "maria", "pause", false, "", "{}", 1, []string{"c"}, nil, nil, []string{"c"}},
		"DeniedBefore": {"eve", "pause", "{}", 60}, "TimeoutsNext": {10}, "TimeoutsOf": {10, "k"}, "RejectedTopics": {10, 10},
		"RejectedCount": {10}, "RejectedEvents": {"", "", "", "", "", uuid.NewString(), 10, 10}, "WaitingPage": {true, "", "", "", time.Now(), 0, 10, 10},
	}
	// One row, or all rows of a table that holds few.
	small := []string{"Seq Scan on outbox_sweep", "Seq Scan on consumer_handler", "Seq Scan on consumer", "Seq Scan on pause", "Seq Scan on installation", "Seq Scan on pg_namespace"}
	for name, query := range queries.Parse(operateSQL+eventSQL+streamSQL+timeoutsSQL+backlogSQL+rejectedSQL+whySQL+reconcileSQL+resendSQL+auditSQL+pauseSQL+overviewSQL+eventPageSQL+parkedPageSQL+sagaPageSQL+waitingPageSQL, schema) {
		values, ok := args[name]
		if !ok {
			if !strings.Contains(name, "Rejected") && name != "Resend" && name != "AuditOf" && name != "AuditOfAny" {
				t.Errorf("no arguments for %s", name)
			}
			continue
		}
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"); err != nil {
				return err
			}
			rows, err := tx.Query(t.Context(), "EXPLAIN "+query, values...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			text := strings.Join(plan, "\n")
			rest := text
			for _, s := range small {
				rest = strings.ReplaceAll(rest, s, "")
			}
			if strings.Contains(rest, "Seq Scan") {
				t.Errorf("%s:\n%s", name, text)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A report changes nothing, even by mistake.
func TestReportsCanNotWrite(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o, err := New(Config{Pool: pool, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	err = o.read(t.Context(), func(s snapshot) error {
		_, err := s.tx.Exec(t.Context(), "DELETE FROM stream")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v", err)
	}
}
