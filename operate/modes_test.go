package operate_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// Every statement works in each mode of pgx.
func TestModesOfPgx(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			pool, schema := testdb.Migrated(t)
			o := testoperator.Of(t, operate.Config{Pool: testdb.Mode(t, pool, mode), Schema: schema, Broker: &fakeBroker{}})
			rejected := make([]uuid.UUID, 4)
			for i := range rejected {
				rejected[i] = uuid.Must(uuid.NewV7())
				_, err := pool.Exec(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body)
					VALUES ($1, 'shop', 'orders', 'x', '4711', $2, 0, now(), 'application/json', '{"CE_region": "eu"}', '{}')`, rejected[i], i+1)
				if err == nil {
					_, err = pool.Exec(ctx, "INSERT INTO outbox_rejected (id, topic, reason, next_at) VALUES ($1, 'orders', 'missing', 'infinity')", rejected[i])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			_, err := pool.Exec(ctx, `
				INSERT INTO outbox_rejected_topic (topic, reason, next_at) VALUES ('orders', 'missing', now());
				INSERT INTO stream VALUES ('shop', 'orders', '4711', 3, 4);
				INSERT INTO position VALUES ('billing', 'shop', 'orders', '4711', 1);
				INSERT INTO consumer (name) VALUES ('billing');
				INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
				VALUES ('invoice', 'reminder', gen_random_uuid(), now(), now(), 'shop', 'reminders', 'remind', '7', '', '');
				INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, last_error, event_id, source, topic, type, subject,
					sequence, previous, recorded_at, database, content_type, body)
				SELECT 'order', '4711', 'failed', true, 'open', 'infinity', now() + interval '1 day', '', gen_random_uuid(), 'shop', 'parcels',
					'parcel.shipped', '4711', 0, 0, now(), '', 'application/json', '{}' FROM generate_series(1, 3)`)
			if err != nil {
				t.Fatal(err)
			}
			dead := park(t, pool, "dead", 2)
			gap := park(t, pool, "gap", 3)

			if list, err := o.RejectedEvents(ctx, operate.RejectedFilter{Type: "x"}); err != nil || len(list) != 4 {
				t.Errorf("rejected: %d, %v", len(list), err)
			}
			if list, err := o.RejectedTopics(ctx); err != nil || len(list) != 1 || list[0].Events != 4 {
				t.Errorf("rejected topics: %+v, %v", list, err)
			}
			if b, err := o.Backlog(ctx); err != nil || len(b.Owed) != 1 || b.Owed[0].Events != 4 || len(b.Parked) != 2 || len(b.Waiting) != 1 {
				t.Errorf("backlog: %+v, %v", b, err)
			}
			if e, err := o.EventStatus(ctx, rejected[0]); err != nil || e.Extensions["region"] != "eu" || e.Rejected == nil {
				t.Errorf("event: %+v, %v", e, err)
			}
			if s, err := o.SubjectStatus(ctx, operate.SubjectFilter{Subject: "4711"}); err != nil || len(s.Streams) != 1 || len(s.Events) != 4 || len(s.Parked) != 2 || *s.Positions[0].Behind != 3 {
				t.Errorf("subject: %+v, %v", s, err)
			}
			for _, key := range []string{"", "order/4711"} {
				if _, err := o.Timeouts(ctx, operate.TimeoutFilter{Key: key}); err != nil {
					t.Errorf("timeouts: %v", err)
				}
			}
			if err := o.MoveTimeout(ctx, operate.TimeoutRef{Key: "invoice", Name: "reminder"}, time.Now().Add(time.Hour)); err != nil {
				t.Errorf("move: %v", err)
			}
			if err := o.DisarmTimeout(ctx, operate.TimeoutRef{Key: "invoice", Name: "reminder"}); err != nil {
				t.Errorf("disarm: %v", err)
			}
			if list, err := o.EndedTimeouts(ctx, operate.TimeoutFilter{Key: "invoice"}); err != nil || len(list) != 2 {
				t.Errorf("ended timeouts: %+v, %v", list, err)
			} else if e, err := o.EventStatus(ctx, list[1].EventID); err != nil || e.Ended == nil || e.Ended.NextEventID != list[0].EventID || e.TimeoutName != "reminder" {
				t.Errorf("the event of an ended timeout: %+v, %v", e, err)
			}
			sagas, err := o.Sagas(ctx, operate.SagaFilter{Key: "4711"})
			if err != nil || len(sagas) != 1 || len(sagas[0].Waiting) != 3 {
				t.Fatalf("sagas: %+v, %v", sagas, err)
			}
			_, now := o.Now(ctx)
			_, schemas := o.Schemas(ctx, 5)
			if err := errors.Join(now, schemas); err != nil {
				t.Error(err)
			}

			y, err := operate.NewSystem(operate.SystemConfig{Operators: []*operate.Operator{o}})
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{rejected[0].String(), "4711", dead.String()} {
				if x, err := y.Why(ctx, id); err != nil || x.Verdict.State != operate.VerdictStopped {
					t.Errorf("why %s: %+v, %v", id, x, err)
				}
			}
			if _, err := pool.Exec(ctx, `UPDATE outbox SET recorded_at = now() - interval '5 minutes';
				INSERT INTO consumer_topic (consumer, topic) VALUES ('billing', 'orders');
				INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'x');
				UPDATE consumer SET born_at = now() - interval '1 hour'; UPDATE consumer_topic SET born_at = now() - interval '1 hour'`); err != nil {
				t.Fatal(err)
			}
			watch := y.Watch(operate.ReconcileConfig{})
			poll.Succeeds(t, time.Minute, func() error { // while another test's transaction is open, younger ones are not read
				x, err := watch.Next(ctx)
				if err == nil && (x.Publishers[0].Published != 4 || x.Consumers[0].Handled != 1 || x.Consumers[0].Owed != 3) {
					err = fmt.Errorf("reconciliation: %+v", x)
				}
				return err
			})
			if x, err := watch.Next(ctx); err != nil || x.Publishers[0].Published != 4 || x.Consumers[0].Handled != 1 || x.Consumers[0].Owed != 3 {
				t.Errorf("the next pass: %+v, %v", x, err)
			}

			want := func(what string, want int) func(int, error) {
				return func(n int, err error) {
					t.Helper()
					if err != nil || n != want {
						t.Errorf("%s: %d, %v; want %d", what, n, err, want)
					}
				}
			}
			want("retry rejected", 1)(o.RetryRejected(ctx, operate.RejectedFilter{EventID: rejected[0]}))
			want("redirect rejected", 2)(o.RedirectRejected(ctx, operate.RejectedFilter{Topic: "orders", Limit: 2}, "invoices"))
			want("discard rejected", 2)(o.DiscardRejected(ctx, operate.RejectedFilter{All: true}, "test"))
			want("resend", 2)(o.Resend(ctx, operate.ResendFilter{Topic: "invoices", Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}))
			want("resend by id", 1)(o.Resend(ctx, operate.ResendFilter{IDs: []uuid.UUID{rejected[0], uuid.New()}}))
			want("retry dead letters", 1)(o.RetryDeadLetters(ctx, operate.ParkedFilter{EventID: dead}))
			if _, err := pool.Exec(ctx, "UPDATE parked SET reason = 'dead' WHERE event_id = $1", dead); err != nil {
				t.Fatal(err)
			}
			want("discard dead letters", 1)(o.DiscardDeadLetters(ctx, operate.ParkedFilter{Source: "shop"}))
			if err := o.AcceptGap(ctx, "billing", gap); err != nil {
				t.Errorf("accept: %v", err)
			}
			if err := o.ResetPosition(ctx, "billing", stream, 1); err != nil {
				t.Errorf("reset: %v", err)
			}
			if _, err := o.RetireHandler(ctx, operate.Handler{Consumer: "billing", Topic: "orders", Type: "y"}); !errors.Is(err, operate.ErrUnknownHandler) {
				t.Errorf("retire: %v", err)
			}
			failed := operate.WaitingFilter{Key: "4711", Statuses: []operate.WaitingStatus{operate.WaitingFailed}}
			want("retry waiting", 1)(o.RetryWaiting(ctx, operate.WaitingFilter{IDs: []int64{sagas[0].Waiting[0].ID}}))
			want("discard waiting", 2)(o.DiscardWaiting(ctx, failed))
			want("discard waiting again", 0)(o.DiscardWaiting(ctx, failed))
			want("discard all waiting", 1)(o.DiscardWaiting(ctx, operate.WaitingFilter{All: true, Limit: 5}))
		})
	}
}

// Reports need no more than SELECT on the tables.
func TestReportsNeedOnlySelect(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	role := testdb.Role(t)
	testdb.ExecIn(t, pool.Config().ConnString(), "GRANT USAGE ON SCHEMA "+schema+" TO "+role, "GRANT SELECT ON ALL TABLES IN SCHEMA "+schema+" TO "+role)
	o := testoperator.New(t, testdb.As(t, pool, role), schema)
	_, backlog := o.Backlog(ctx)
	_, subject := o.SubjectStatus(ctx, operate.SubjectFilter{Subject: "4711"})
	_, timeouts := o.Timeouts(ctx, operate.TimeoutFilter{})
	_, sagas := o.Sagas(ctx, operate.SagaFilter{Key: "4711"})
	_, waiting := o.WaitingEvents(ctx, operate.WaitingFilter{})
	_, rejected := o.RejectedEvents(ctx, operate.RejectedFilter{})
	_, topics := o.RejectedTopics(ctx)
	_, letters := o.DeadLetters(ctx, operate.ParkedFilter{})
	_, parked := o.ParkedEvents(ctx, operate.ParkedFilter{})
	_, schemas := o.Schemas(ctx, 5)
	y, err := operate.NewSystem(operate.SystemConfig{Operators: []*operate.Operator{o}})
	if err != nil {
		t.Fatal(err)
	}
	_, why := y.Why(ctx, uuid.NewString())
	_, reconciled := y.Reconcile(ctx, operate.ReconcileConfig{})
	if err := errors.Join(why, reconciled, backlog, subject, timeouts, sagas, waiting, rejected, topics, letters, parked, schemas); err != nil {
		t.Error(err)
	}
	if _, err := o.EventStatus(ctx, uuid.New()); !errors.Is(err, operate.ErrUnknownEvent) {
		t.Errorf("event: %v", err)
	}
	if _, err := o.DiscardWaiting(ctx, operate.WaitingFilter{All: true}); err == nil {
		t.Error("a change was accepted")
	}
}
