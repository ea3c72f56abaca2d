package acceptance

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// hostile fills a schema, {evil}, with what a role could put there that may create in a schema of the search path: it fits
// better than what pg_catalog has, wherever a type isn't exact. Each use of it is counted, which no rollback undoes, and
// fails.
//
// A type that isn't exact is an integer where a bigint or a double precision is wanted, say, and any array: the operators
// of pg_catalog for arrays take all of them.
const hostile = `
CREATE SEQUENCE {evil}.used MINVALUE 0 START 0;
SELECT nextval('{evil}.used');
GRANT ALL ON SEQUENCE {evil}.used TO PUBLIC;
CREATE TABLE {evil}.types AS SELECT unnest(ARRAY['text', 'varchar', 'name', 'int2', 'int4', 'int8', 'numeric', 'float8', 'bool', 'uuid', 'text[]',
	'uuid[]', 'int8[]', 'xid8[]', 'timestamptz', 'interval', 'jsonb', 'xid8', 'bytea', 'oid', 'regclass']::regtype[]) AS type;
CREATE TABLE {evil}.operators AS SELECT * FROM (VALUES ('=', 'bool'), ('<>', 'bool'), ('<', 'bool'), ('<=', 'bool'), ('>', 'bool'), ('>=', 'bool'),
	('+', 'left'), ('-', 'left'), ('*', 'left'), ('/', 'left'), ('||', 'left')) o (name, result);
DO $do$
DECLARE
	l regtype; r regtype; op record; result text; body text;
BEGIN
	FOR l, r IN SELECT a.type, b.type FROM {evil}.types a, {evil}.types b LOOP
		FOREACH result IN ARRAY ARRAY['bool', 'left'] LOOP
			body := format('BEGIN PERFORM nextval(''{evil}.used''); RAISE EXCEPTION ''hijacked: an operator of %s and %s''; END', l, r);
			EXECUTE format('CREATE FUNCTION {evil}.%I(%s, %s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS %L', 'operate_' || result, l, r,
				CASE result WHEN 'bool' THEN 'bool' ELSE l::text END, body);
		END LOOP;
		FOR op IN SELECT name, o.result FROM {evil}.operators o WHERE NOT EXISTS (
			SELECT FROM pg_operator p WHERE p.oprname = o.name AND p.oprleft = l AND p.oprright = r AND p.oprnamespace = 'pg_catalog'::regnamespace
		) LOOP
			EXECUTE format('CREATE OPERATOR {evil}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = {evil}.%I)', op.name, l, r, 'operate_' || op.result);
		END LOOP;
	END LOOP;
END $do$;
CREATE FUNCTION {evil}.hashtextextended(text, integer) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN PERFORM nextval('{evil}.used'); RAISE EXCEPTION 'hijacked: hashtextextended'; END $$;
CREATE FUNCTION {evil}.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
	BEGIN PERFORM nextval('{evil}.used'); RAISE EXCEPTION 'hijacked: unnest'; END $$;
CREATE FUNCTION {evil}.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
	BEGIN PERFORM nextval('{evil}.used'); RAISE EXCEPTION 'hijacked: unnest'; END $$;
CREATE FUNCTION {evil}.count(uuid) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN PERFORM nextval('{evil}.used'); RAISE EXCEPTION 'hijacked: count'; END $$;
CREATE TABLE {evil}.outbox (hostile int); CREATE TABLE {evil}.outbox_ack (hostile int); CREATE TABLE {evil}.installation (hostile int);
CREATE TABLE {evil}.position (hostile int); CREATE TABLE {evil}.parked (hostile int); CREATE TABLE {evil}.saga (hostile int);
CREATE TABLE {evil}.timeout (hostile int); CREATE TABLE {evil}.rocketflow_migration (hostile int)`

// TestObjectsOfOtherRolesInTheSearchPathAreNotUsed checks that rocketflow never runs or reads what another role puts into a
// schema of the search path.
func TestObjectsOfOtherRolesInTheSearchPathAreNotUsed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	evil := "evil_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	testdb.Exec(t, "CREATE SCHEMA "+evil, "GRANT USAGE ON SCHEMA "+evil+" TO PUBLIC", strings.ReplaceAll(hostile, "{evil}", evil))
	t.Cleanup(func() { dropHostile(t, evil) })

	said := &hijacks{of: map[string]bool{}}
	w := rocketflowtest.New(t, rocketflowtest.Config{Logger: slog.New(slog.NewTextHandler(said, nil))})
	var pool *pgxpool.Pool
	defer func() { // also when the flow ends early
		var used int
		if err := pool.QueryRow(ctx, "SELECT last_value FROM "+evil+".used").Scan(&used); err != nil || used != 1 { // by the trap's own test
			t.Errorf("hostile functions were called %d times (%v): %v", used-1, err, slices.Sorted(maps.Keys(said.of)))
		}
	}()
	f := newFlow(t, w, func(schema string) *pgxpool.Pool {
		config, err := pgxpool.ParseConfig(w.DatabaseURL())
		if err != nil {
			t.Fatal(err)
		}
		// The clock of the test, what is PostgreSQL's own, and then the hostile: the order of a path that doesn't name
		// pg_catalog. rocketflow's schema isn't in it.
		config.ConnConfig.RuntimeParams["search_path"] += ", " + evil
		config.MaxConns = 12
		pool, err = pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		t.Cleanup(func() {
			if err := pgschema.Drop(ctx, testdb.URL(t), schema); err != nil {
				t.Error(err)
			}
		})
		if _, err := pool.Exec(ctx, "SELECT 1::float8 + 1::int4"); err == nil || !strings.Contains(err.Error(), "hijacked") {
			t.Fatalf("the trap doesn't work: %v", err)
		}
		if err := migrations.Up(ctx, pool, schema); err != nil {
			t.Fatal(err)
		}
		return pool
	})
	f.run()
	reportAll(t, pool, f.s.Schema)
}

// reportAll reads all that operators may, of the database with a pool. What it reads is of no matter.
func reportAll(t *testing.T, pool *pgxpool.Pool, schema string) {
	t.Helper()
	ctx, o := t.Context(), testoperator.New(t, pool, schema)
	y, err := operate.NewSystem(operate.SystemConfig{Operators: []*operate.Operator{o}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := doctor.New(doctor.Config{Databases: []doctor.Database{{Pool: pool, Schemas: []string{schema}}}})
	if err != nil {
		t.Fatal(err)
	}
	page, err := o.EventPage(ctx, operate.EventPageFilter{})
	at := slices.IndexFunc(page.Events, func(e operate.EventRow) bool { return e.Subject != "" })
	if err != nil || at < 0 {
		t.Fatalf("events: %+v, %v", page, err)
	}
	event := page.Events[at]
	for what, report := range map[string]func() error{
		"why an event":  func() error { _, err := y.Why(ctx, event.ID.String()); return err },
		"why a subject": func() error { _, err := y.Why(ctx, event.Subject); return err },
		"reconcile":     func() error { _, err := y.Reconcile(ctx, operate.ReconcileConfig{}); return err },
		"overview":      func() error { _, err := o.Overview(ctx); return err },
		"backlog":       func() error { _, err := o.Backlog(ctx); return err },
		"usage":         func() error { _, err := o.Usage(ctx); return err },
		"event":         func() error { _, err := o.EventStatus(ctx, event.ID); return err },
		"subject": func() error {
			_, err := o.SubjectStatus(ctx, operate.SubjectFilter{Subject: event.Subject})
			return err
		},
		"events of a type": func() error { _, err := o.EventPage(ctx, operate.EventPageFilter{Type: "x", Subject: "y"}); return err },
		"dead letters": func() error {
			_, err := o.ParkedPage(ctx, operate.ParkedPageFilter{Dead: true, Error: "x"})
			return err
		},
		"waiting events":    func() error { _, err := o.ParkedPage(ctx, operate.ParkedPageFilter{Consumer: "x"}); return err },
		"parked events":     func() error { _, err := o.ParkedEvents(ctx, operate.ParkedFilter{Limit: 10}); return err },
		"rejected events":   func() error { _, err := o.RejectedPage(ctx, operate.RejectedPageFilter{Topic: "x"}); return err },
		"rejected topics":   func() error { _, err := o.RejectedTopics(ctx); return err },
		"waiting for sagas": func() error { _, err := o.WaitingPage(ctx, operate.WaitingPageFilter{Stopped: true}); return err },
		"groups":            func() error { _, err := o.DeadLetterGroups(ctx); return err },
		"parked groups":     func() error { _, err := o.ParkedGroups(ctx); return err },
		"events out":        func() error { _, err := o.EventsOut(ctx, []uuid.UUID{uuid.New()}); return err },
		"streams":           func() error { _, err := o.ParkedStreams(ctx, operate.ParkedStreamFilter{}); return err },
		"sagas":             func() error { _, err := o.SagaPage(ctx, operate.SagaPageFilter{}); return err },
		"running sagas":     func() error { _, err := o.RunningSagas(ctx); return err },
		"saga transitions":  func() error { _, err := o.SagaTransitions(ctx, "x"); return err },
		"timeouts":          func() error { _, err := o.TimeoutPage(ctx, operate.TimeoutPageFilter{}); return err },
		"audit":             func() error { _, err := o.Audit(ctx, operate.AuditFilter{}); return err },
		"audit of an event": func() error { _, err := o.Audit(ctx, operate.AuditFilter{ID: event.ID.String()}); return err },
		"pauses":            func() error { _, err := o.Pauses(ctx, ""); return err },
	} {
		if err := report(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r := d.Examine(ctx); len(r.Results) == 0 {
		t.Error("the doctor has examined nothing")
	}
}

// hijacks collects what a log says of hostile functions.
type hijacks struct {
	mu sync.Mutex
	of map[string]bool
}

var hijacked = regexp.MustCompile(`hijacked: [a-z0-9_\[\] ]+`)

func (h *hijacks) Write(line []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, what := range hijacked.FindAllString(string(line), -1) {
		h.of[what] = true
	}
	return len(line), nil
}

// dropHostile drops piece by piece: in one transaction it would take more locks than a server may have.
func dropHostile(t *testing.T, evil string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = to_regnamespace($1)", evil)
	if err != nil {
		t.Fatal(err)
	}
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var batch pgx.Batch
	for _, f := range functions {
		batch.Queue(fmt.Sprintf("DROP FUNCTION %s CASCADE", f))
	}
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		t.Error(err)
	}
	if err := pgschema.Drop(ctx, testdb.URL(t), evil); err != nil {
		t.Error(err)
	}
}
