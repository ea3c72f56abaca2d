package doctor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// proof has a situation for each answer of a check.
type proof struct {
	finding, ok, unknown func(*world)
	// says is a part of the finding's texts, mends of its Mend.
	says, mends string
	// stays is why the finding is there after what mends it, where that is SQL or a change of the broker's settings.
	stays string
}

// proofs has the proof of each check. Each file of tests adds those of its group.
var proofs = map[string]proof{}

// Each check finds what it is for, is ok where that isn't, and is not known where it can't look.
func TestEachCheck(t *testing.T) {
	t.Parallel()
	for _, c := range Checks() {
		p, has := proofs[c.Code]
		if !has || p.finding == nil || p.ok == nil || p.unknown == nil {
			t.Errorf("no proof of %s", c.Code)
			continue
		}
		for answer, situation := range map[Status]func(*world){Finding: p.finding, OK: p.ok, Unknown: p.unknown} {
			t.Run(c.Code+"/"+string(answer), func(t *testing.T) {
				t.Parallel()
				w := &world{T: t, config: Config{Only: []string{c.Code}, CheckTimeout: 20 * time.Second}}
				situation(w)
				results := w.examine().Results
				var matching []Result
				for _, r := range results {
					if r.Status == answer {
						matching = append(matching, r)
					} else if answer == OK {
						t.Errorf("got %+v", r)
					}
				}
				if len(matching) == 0 {
					t.Fatalf("want %s, got %+v", answer, results)
				}
				if answer == Finding {
					checkFinding(t, p, matching)
					if p.stays == "" {
						w.checkMend(matching)
					}
				}
			})
		}
	}
	for code := range maps.Keys(proofs) {
		if !slices.ContainsFunc(Checks(), func(c Check) bool { return c.Code == code }) {
			t.Errorf("a proof of %s, which is no check", code)
		}
	}
}

func checkFinding(t *testing.T, p proof, results []Result) {
	t.Helper()
	for _, r := range results {
		if strings.Contains(r.Observed+" "+r.Needed, p.says) && strings.Contains(r.Mend, p.mends) {
			t.Logf("%s\n%s\n%s\n%s", r.Subject, r.Observed, r.Needed, r.Mend)
			if r.Needed == "" || r.Mend == "" {
				t.Errorf("a finding says what is needed and what mends it: %+v", r)
			}
			return
		}
	}
	t.Errorf("want a finding that says %q and %q, got %+v", p.says, p.mends, results)
}

// checkMend does what findings say, and looks again: nothing is found any more. It does nothing if that isn't SQL or a change of
// the broker's settings.
func (w *world) checkMend(findings []Result) {
	w.Helper()
	var statements []string
	settings := map[string]string{}
	for _, f := range findings {
		for line := range strings.Lines(f.Mend) {
			words := strings.Fields(line)
			switch {
			case len(words) == 0 || words[0] == "#":
			case slices.Contains([]string{"GRANT", "ALTER", "SELECT", "CREATE", "ROLLBACK"}, words[0]):
				statements = append(statements, line)
			case strings.HasPrefix(line, "mqadmin updateBrokerConfig -b "+w.brokerAddress()+" -k ") && len(words) == 8 && words[6] == "-v":
				settings[words[5]] = words[7]
			default:
				return
			}
		}
	}
	if len(statements)+len(settings) == 0 {
		return
	}
	for _, s := range statements {
		if _, err := w.admin().Exec(w.Context(), s, pgx.QueryExecModeSimpleProtocol); err != nil {
			w.Fatalf("%s: %v", s, err)
		}
	}
	for name, value := range settings {
		w.set(name, value)
	}
	if r := w.examine(); len(r.Findings()) > 0 {
		w.Errorf("after %v %v: %+v", statements, settings, r.Findings())
	}
}

// admin returns a pool of a role that may do anything.
func (w *world) admin() *pgxpool.Pool {
	if w.pool != nil {
		return w.pool
	}
	return w.config.Databases[0].Pool
}

func (w *world) brokerAddress() string {
	if w.mq == nil {
		return "?"
	}
	return w.mq.BrokerAddr()
}

// world is what a test examines.
type world struct {
	*testing.T
	config Config
	pool   *pgxpool.Pool
	schema string
	mq     *rocketmqtest.Server
}

func (w *world) examine() *Report {
	w.Helper()
	d, err := New(w.config)
	if err != nil {
		w.Fatal(err)
	}
	return d.Examine(w.Context())
}

// database makes a schema with rocketflow's tables, which belongs to the service shop, and examines it.
func (w *world) database() *Database {
	w.Helper()
	w.pool, w.schema = testdb.Migrated(w)
	w.exec("UPDATE installation SET source = 'shop', claimed_at = now()")
	return w.also(Database{Pool: w.pool, Schemas: []string{w.schema}})
}

// also examines another database.
func (w *world) also(d Database) *Database {
	w.config.Databases = append(w.config.Databases, d)
	return &w.config.Databases[len(w.config.Databases)-1]
}

// poor makes a schema of which the examining role may read nothing.
func (w *world) poor() {
	w.Helper()
	w.database().Pool = testdb.As(w, w.pool, testdb.Role(w))
}

// reader makes a schema whose tables the examining role may read, and nothing else.
func (w *world) reader() {
	w.Helper()
	d, role := w.database(), testdb.Role(w)
	w.exec("GRANT USAGE ON SCHEMA " + w.schema + " TO " + role)
	w.exec("GRANT SELECT ON ALL TABLES IN SCHEMA " + w.schema + " TO " + role)
	d.Pool = testdb.As(w, w.pool, role)
}

// away examines a database whose server can't be reached.
func (w *world) away() {
	w.Helper()
	config, err := pgxpool.ParseConfig("postgres://nobody:very-secret@127.0.0.1:1/none")
	if err != nil {
		w.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(pool.Close)
	w.also(Database{Pool: pool})
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.pool.Exec(w.Context(), sql, args...); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
}

// broker starts an embedded broker and examines it.
func (w *world) broker(c ...rocketmqtest.Config) {
	w.Helper()
	w.mq = rocketmqtest.RunT(w, c...)
	w.config.Broker = &Broker{NameServers: []string{w.mq.Addr()}}
}

// brokerAway examines a RocketMQ that can't be reached.
func (w *world) brokerAway() { w.config.Broker = &Broker{NameServers: []string{"127.0.0.1:1"}} }

// forbid makes the broker refuse a request, as one does where a right is missing.
func (w *world) forbid(code remoting.Code) {
	w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Code == int(code) && !r.FromBroker {
			return rocketmqtest.Respond(int(remoting.NoPermission), "User:app has no permission")
		}
		return rocketmqtest.Pass
	})
}

// set changes settings of the broker: name, value, name, value.
func (w *world) set(namesAndValues ...string) {
	w.Helper()
	var body strings.Builder
	for i := 0; i < len(namesAndValues); i += 2 {
		fmt.Fprintf(&body, "%s=%s\n", namesAndValues[i], namesAndValues[i+1])
	}
	w.request(&remoting.Command{Code: remoting.UpdateBrokerConfig, Body: []byte(body.String())})
}

// conn connects to the broker until the test ends.
func (w *world) conn() *remoting.Conn {
	w.Helper()
	conn, err := remoting.Dial(w.Context(), w.mq.BrokerAddr(), remoting.Credentials{}, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(conn.Close)
	return conn
}

// request sends a request to the broker.
func (w *world) request(r *remoting.Command) *remoting.Command {
	w.Helper()
	response, err := w.conn().Call(w.Context(), r)
	if err != nil {
		w.Fatal(err)
	}
	return response
}

// partitions makes the daily partitions of the schema, as a running service does.
func (w *world) partitions() {
	w.Helper()
	for _, name := range []string{"outbox", "outbox_ack", "inbox", "timeout_history"} {
		if _, err := partition.Ensure(w.Context(), w.pool, partition.Table{Schema: w.schema, Name: name}, time.Now(), 7); err != nil {
			w.Fatal(err)
		}
	}
}

// event inserts an event into the outbox, so long ago, and returns its id.
func (w *world) event(topic string, age time.Duration) string {
	w.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	w.exec(`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		VALUES ($1, 'shop', $2, 'order.placed', 'o-1', $3, 0, now() - $4::interval, 'application/json', '{"card":"4711"}')`,
		id, topic, time.Now().Add(-age).UnixMicro(), age)
	w.exec("INSERT INTO stream (source, topic, subject, previous, sequence) VALUES ('shop', $1, 'o-1', 0, 1) ON CONFLICT DO NOTHING", topic)
	return id
}

// consumer registers a consumer of topics.
func (w *world) consumer(name string, topics ...string) {
	w.Helper()
	w.exec("INSERT INTO consumer (name) VALUES ($1)", name)
	for _, topic := range topics {
		w.exec("INSERT INTO consumer_topic (consumer, topic) VALUES ($1, $2)", name, topic)
		w.exec("INSERT INTO consumer_handler (consumer, topic, type) VALUES ($1, $2, 'order.placed')", name, topic)
	}
}

// join makes a client a member of a consumer group until the test ends.
func (w *world) join(group, client string, topics ...string) *remoting.Conn {
	w.Helper()
	var subscriptions []string
	for _, topic := range topics {
		subscriptions = append(subscriptions, fmt.Sprintf(`{"topic":%q,"subString":"*","subVersion":%d,"expressionType":"TAG"}`, topic, time.Now().UnixNano()))
	}
	conn := w.conn()
	_, err := conn.Call(w.Context(), &remoting.Command{Code: remoting.Heartbeat, Body: fmt.Appendf(nil,
		`{"clientID":%q,"producerDataSet":[],"consumerDataSet":[{"groupName":%q,"consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[%s]}]}`,
		client, group, strings.Join(subscriptions, ","))})
	if err != nil {
		w.Fatal(err)
	}
	return conn
}

// produce makes a client a member of a producer group until the test ends.
func (w *world) produce(group string) {
	w.Helper()
	body := fmt.Appendf(nil, `{"clientID":"shop-1","producerDataSet":[{"groupName":%q}],"consumerDataSet":[]}`, group)
	if _, err := w.conn().Call(w.Context(), &remoting.Command{Code: remoting.Heartbeat, Body: body}); err != nil {
		w.Fatal(err)
	}
}

// begin opens a transaction until the test ends.
func (w *world) begin(pool *pgxpool.Pool) pgx.Tx {
	w.Helper()
	tx, err := pool.Begin(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func init() {
	maps.Copy(proofs, map[string]proof{
		"host-clock": {
			finding: func(w *world) {
				w.broker()
				w.mq.FastForward(time.Hour)
			},
			says: "1h0m0s ahead", mends: "set-ntp",
			ok: func(w *world) {
				w.database()
				w.broker()
			},
			unknown: func(w *world) {
				w.broker()
				w.forbid(remoting.BrokerRuntime)
			},
		},
	})
}

// ownServer starts a PostgreSQL server of the test's own.
func ownServer(w *world, settings map[string]string) (*devstack.Postgres, *pgxpool.Pool) {
	w.Helper()
	server, err := devstack.StartPostgres(w.Context(), devstack.PostgresConfig{Settings: settings})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = server.Stop(context.Background()) })
	pool, err := pgxpool.New(context.Background(), server.URL())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(pool.Close)
	return server, pool
}

// replica returns a pool of a server that waits for a primary's log.
func replica(w *world) *pgxpool.Pool {
	w.Helper()
	server, pool := ownServer(w, nil)
	if err := os.WriteFile(filepath.Join(server.Dir(), "data", "standby.signal"), nil, 0o644); err != nil {
		w.Fatal(err)
	}
	if err := server.Restart(w.Context()); err != nil {
		w.Fatal(err)
	}
	return pool
}
