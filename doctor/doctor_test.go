package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// What can't be looked at is not known, and never ok: no server, no configuration, no right, no time.
func TestNothingToLookAtIsUnknown(t *testing.T) {
	t.Parallel()
	for name, situation := range map[string]func(*world){
		"nothing configured": func(*world) {},
		"all away": func(w *world) {
			w.away()
			w.brokerAway()
		},
		"no time": func(w *world) {
			w.database()
			w.broker()
			w.config.Timeout = time.Nanosecond
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, config: Config{Probe: true}}
			situation(w)
			seen := map[string]bool{}
			for _, r := range w.examine().Results {
				seen[r.Code] = true
				if r.Status != Unknown || r.Observed == "" {
					t.Errorf("got %+v", r)
				}
			}
			for _, c := range Checks() {
				if !seen[c.Code] {
					t.Errorf("no answer of %s", c.Code)
				}
			}
		})
	}
}

// A server that accepts connections and answers nothing delays an examination by its timeouts only.
func TestHangingBrokerIsUnknownInTime(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker"}, CheckTimeout: 300 * time.Millisecond}}
	w.broker()
	w.mq.Pause()
	began := time.Now()
	r := w.examine()
	if len(r.Findings()) > 0 || len(r.Unknown()) == 0 {
		t.Errorf("got %+v", r.Results)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// No result has a secret, an event's content, or a statement of the application.
func TestReportHasNoSecrets(t *testing.T) {
	t.Parallel()
	const secret = "very-secret"
	w := &world{T: t, config: Config{Probe: true, Expect: Expect{MaxTransaction: time.Microsecond, MaxIdle: time.Microsecond}}}
	w.away() // with the secret as its password
	w.database()
	w.partitions()
	w.event("orders", time.Hour)
	w.consumer("billing", "orders")
	w.park("dead", time.Hour)
	tx := w.begin(w.pool)
	if _, err := tx.Exec(t.Context(), "SELECT 'card 4711'"); err != nil {
		t.Fatal(err)
	}
	w.broker(rocketmqtest.Config{Credentials: map[string]string{"app": secret}})
	w.config.Broker.AccessKey, w.config.Broker.SecretKey = "app", secret
	report := w.examine()
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{secret, "4711"} {
		if strings.Contains(string(text), bad) {
			t.Errorf("the report has %q: %s", bad, text)
		}
	}
	if len(report.Findings()) < 4 {
		t.Errorf("only %d findings", len(report.Findings()))
	}
}

// Wrong credentials are not known, not ok.
func TestWrongCredentialsAreUnknown(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker"}, Pre: true}}
	w.broker(rocketmqtest.Config{Credentials: map[string]string{"app": "right"}})
	w.config.Broker.AccessKey, w.config.Broker.SecretKey = "app", "wrong"
	r := w.examine()
	if len(r.Findings()) > 0 || len(r.Unknown()) < 5 {
		t.Errorf("got %+v", r.Results)
	}
}

// A right that is missing at the broker is named, with the command that grants it.
func TestMissingRightAtBrokerIsNamed(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"consumer-absent"}}}
	w.database()
	w.broker()
	w.consumer("billing", "orders")
	w.forbid(remoting.ConsumerConnections)
	r := w.examine().Results
	if len(r) != 1 || r[0].Status != Unknown || !strings.Contains(r[0].Observed, "a right is missing") || !strings.Contains(r[0].Mend, "-r 'Topic:*,Group:*,Cluster:*' -a Sub,Get") {
		t.Errorf("got %+v", r)
	}
}

// A right that is missing in Postgres is named, too.
func TestMissingRightInPostgresIsNamed(t *testing.T) {
	t.Parallel()
	p := &world{T: t, config: Config{Only: []string{"outbox-owed"}}}
	p.poor()
	if r := p.examine().Results; len(r) != 1 || r[0].Status != Unknown || !strings.Contains(r[0].Observed, "a right is missing") || !strings.Contains(r[0].Mend, "GRANT SELECT ON ALL TABLES IN SCHEMA") {
		t.Errorf("got %+v", r)
	}
	w := &world{T: t, config: Config{Only: []string{"postgres-long-transaction"}}}
	w.reader()
	r := w.examine().Results
	if len(r) != 1 || r[0].Status != Unknown || !strings.Contains(r[0].Mend, "GRANT pg_read_all_stats TO ") {
		t.Errorf("got %+v", r)
	}
}

// Before an installation, what needs tables isn't looked at.
func TestPreLeavesOutChecksThatNeedTables(t *testing.T) {
	t.Parallel()
	pool, _ := testdb.Schema(t)
	w := &world{T: t, config: Config{Pre: true}}
	w.broker()
	w.also(Database{Pool: pool, Schemas: []string{"shop_rocketflow"}})
	for _, r := range w.examine().Results {
		if r.Status == Unknown || r.Group == Outbox || r.Group == Consumers || r.Group == Flows {
			t.Errorf("got %+v", r)
		}
	}
}

// Without names all schemas of a database that have the tables are examined.
func TestFindsSchemas(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"postgres-migrated"}}}
	w.database().Schemas = nil
	found := false
	for _, r := range w.examine().Results {
		found = found || strings.HasSuffix(r.Subject, " schema "+w.schema)
	}
	if !found {
		t.Error("the schema was not found")
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]Config{
		"doctor.Config.Databases.Pool":        {Databases: []Database{{}}},
		"doctor.Config.Broker.NameServers":    {Broker: &Broker{NameServers: []string{"nonsense"}}},
		"doctor.Config.Broker.SecretKey":      {Broker: &Broker{NameServers: []string{"a:1"}, AccessKey: "x"}},
		"doctor.Config.Only":                  {Only: []string{"nonsense"}},
		"doctor.Config.Skip":                  {Skip: []string{"nonsense"}},
		"doctor.Config.Interval":              {Interval: time.Second},
		"doctor.Config.CheckTimeout":          {CheckTimeout: -1},
		"doctor.Config.Expect.MaxTransaction": {Expect: Expect{MaxTransaction: -1}},
	} {
		_, err := New(c)
		var wrong *rocketflow.FieldError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("got %v, want an error of %s", err, field)
		}
	}
}

// Each statement works in a read-only transaction, and uses an index where a table can be large.
func TestStatementsReadByIndex(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	args := map[string][]any{
		"Schemas": {5}, "Consumers": {5}, "LeaseHeld": {"x"}, "FarthestTimeout": {5}, "PublishedTopics": {5}, "TimeoutTopics": {5}, "Rejected": {5, 5},
		"IdleSagas": {1.5, 5, 5}, "SagaVersions": {5}, "Unhandled": {5, 5}, "Paused": {5, 5}, "FailedWaiting": {5, 5}, "Sessions": {5}, "Connections": {"x"},
		"PreparedTransactions": {5}, "MayCreate": {"x"}, "MissingRights": {"x", "postgres", []string{"x"}, 5, false}, "WithoutAutovacuum": {"x", 5},
		"Partitions": {"x", []string{"x"}}, "DefaultPartitions": {5}, "HasStatement": {"x"},
	}
	// One row, or a table that holds few, or a read that ends at a limit, or at the first row.
	small := []string{"installation", "consumer ", "lease", "pause ", "outbox_rejected_topic", "outbox_retention", "outbox_default", "outbox_ack_default", "inbox_default", "pg_"}
	for name, query := range queries.Parse(doctorSQL, schema) {
		err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"); err != nil {
				return err
			}
			rows, err := tx.Query(t.Context(), "EXPLAIN "+query, args[name]...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			for _, line := range plan {
				_, scanned, seq := strings.Cut(line, "Seq Scan on ")
				if !seq {
					continue
				}
				allowed := false
				for _, s := range small {
					allowed = allowed || strings.HasPrefix(scanned, s)
				}
				if !allowed {
					t.Errorf("%s: %s", name, line)
				}
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An examination changes nothing, even by mistake.
func TestExaminationOnlyReads(t *testing.T) {
	t.Parallel()
	w := &world{T: t}
	w.database()
	x := &examination{config: Config{}.withDefaults()}
	d := openDatabase(t.Context(), x, w.config.Databases[0])
	err := d.read(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), "DELETE FROM stream")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v", err)
	}
}
