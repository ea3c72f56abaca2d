package doctor

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func init() {
	maps.Copy(proofs, map[string]proof{
		"postgres-version": {
			finding: func(w *world) {
				w.database()
				w.config.oldestVersion = 99
			}, says: "PostgreSQL 99 or newer", mends: "pg_upgrade",
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-primary": {
			finding: func(w *world) { w.also(Database{Pool: replica(w)}) }, says: "replica", mends: "target_session_attrs",
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-durability": {
			finding: func(w *world) {
				_, pool := ownServer(w, map[string]string{"fsync": "off"})
				w.also(Database{Pool: pool})
			}, says: "fsync off", mends: "ALTER SYSTEM SET fsync = on", stays: "the server's command line has it",
			ok: func(w *world) {
				_, pool := ownServer(w, nil)
				w.also(Database{Pool: pool})
			},
			unknown: (*world).away,
		},
		"postgres-standby": {
			finding: func(w *world) {
				_, pool := ownServer(w, map[string]string{"synchronous_standby_names": "gone"})
				w.also(Database{Pool: pool})
			}, says: `"gone", and 0 such replicas connected`, mends: "synchronous_standby_names = ''", stays: "the server's command line has it",
			ok: func(w *world) { w.database() },
			unknown: func(w *world) {
				_, pool := ownServer(w, map[string]string{"synchronous_standby_names": "gone"})
				if _, err := pool.Exec(w.Context(), "SET synchronous_commit = local; CREATE ROLE poor LOGIN"); err != nil {
					w.Fatal(err)
				}
				w.also(Database{Pool: testdb.As(w, pool, "poor")})
			},
		},
		"postgres-connections": {
			finding: func(w *world) {
				d, role := w.database(), testdb.Role(w)
				testdb.Exec(w, "ALTER ROLE "+role+" CONNECTION LIMIT 7")
				d.Role, d.PoolSize = role, 24
			}, says: "0 of 7 connections of the role", mends: "CONNECTION LIMIT 48",
			ok:      func(w *world) { w.database().PoolSize = 5 },
			unknown: func(w *world) { w.database().Role = "nobody_of_this_name" },
		},
		"postgres-pooler": {
			finding: func(w *world) {
				w.database()
				w.config.Databases[0].Pool = testdb.Mode(w, testdb.ThroughPgBouncer(w, w.pool, "transaction"), pgx.QueryExecModeCacheStatement)
			}, says: "doesn't follow prepared statements", mends: "default_query_exec_mode=exec",
			ok: func(w *world) {
				w.database()
				through := testdb.ThroughPgBouncer(w, w.pool, "transaction")
				w.also(Database{Pool: testdb.Mode(w, through, pgx.QueryExecModeExec)})
				session := testdb.ThroughPgBouncer(w, w.pool, "session")
				w.also(Database{Pool: testdb.Mode(w, session, pgx.QueryExecModeCacheStatement)})
			},
			unknown: (*world).away,
		},
		"postgres-long-transaction": {
			finding: func(w *world) {
				w.database()
				w.config.Expect.MaxTransaction = time.Microsecond
				w.begin(w.pool)
			}, says: "a transaction is open for", mends: "SELECT pg_catalog.pg_terminate_backend(", stays: "other tests have transactions",
			ok: func(w *world) {
				w.database()
				w.config.Expect.MaxTransaction = time.Hour
			},
			unknown: (*world).reader,
		},
		"postgres-idle-transaction": {
			finding: func(w *world) {
				w.database()
				w.config.Expect.MaxIdle = time.Microsecond
				w.begin(w.pool)
			}, says: "a transaction is idle for", mends: "idle_in_transaction_session_timeout", stays: "other tests have transactions",
			ok: func(w *world) {
				w.database()
				w.config.Expect.MaxIdle = time.Hour
			},
			unknown: (*world).reader,
		},
		"postgres-prepared-transaction": {
			finding: func(w *world) {
				_, pool := ownServer(w, map[string]string{"max_prepared_transactions": "2"})
				if _, err := pool.Exec(w.Context(), "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s left'", pgx.QueryExecModeSimpleProtocol); err != nil {
					w.Fatal(err)
				}
				w.also(Database{Pool: pool})
				w.config.Expect.MaxIdle = time.Microsecond
			}, says: `"it's left"`, mends: "ROLLBACK PREPARED 'it''s left'",
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-create": {
			finding: func(w *world) {
				w.database()
				w.also(Database{Pool: testdb.As(w, w.pool, testdb.Role(w)), Schemas: []string{"shop_rocketflow"}})
			}, says: "schema shop_rocketflow doesn't exist", mends: `CREATE SCHEMA "shop_rocketflow" AUTHORIZATION "role_`,
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-migrated": {
			finding: func(w *world) {
				w.database()
				w.exec("ALTER TABLE timeout DROP COLUMN sends")
			}, says: "lacks timeout.sends", mends: "rocketflow migrate up --schema test_",
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-rights": {
			finding: func(w *world) {
				d, role := w.database(), testdb.Role(w)
				w.exec("GRANT USAGE ON SCHEMA " + w.schema + " TO " + role)
				w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + w.schema + " TO " + role)
				w.exec("REVOKE UPDATE ON parked FROM " + role)
				w.exec("REVOKE UPDATE, DELETE ON audit FROM " + role)
				d.Role = role
			}, says: "lacks DELETE on audit, UPDATE on parked, EXECUTE on drop_partition(), EXECUTE on make_partition()", mends: "GRANT EXECUTE ON ALL FUNCTIONS",
			ok: func(w *world) { // nothing deletes from the audit
				d, role := w.database(), testdb.Role(w)
				w.exec("GRANT USAGE ON SCHEMA " + w.schema + " TO " + role)
				w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + w.schema + " TO " + role)
				w.exec("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA " + w.schema + " TO " + role)
				w.exec("REVOKE UPDATE, DELETE ON audit FROM " + role)
				d.Role, w.config.Expect.AuditRetention = role, -1
			},
			unknown: func(w *world) { w.database().Role = "nobody_of_this_name" },
		},
		"postgres-pool": {
			finding: func(w *world) {
				w.database().PoolSize = 24
				w.consumer("billing", "orders")
				w.consumer("mailing", "orders")
				w.consumer("search", "orders")
			}, says: "30: 8 for each consumer's lanes", mends: "pool_max_conns=40",
			ok:      func(w *world) { w.database().PoolSize = 6 },
			unknown: func(w *world) { w.database() },
		},
		"postgres-autovacuum": {
			finding: func(w *world) {
				w.database()
				w.exec("ALTER TABLE stream SET (autovacuum_enabled = off)")
			}, says: "autovacuum is off for stream", mends: `"stream" SET (autovacuum_enabled = on)`,
			ok:      func(w *world) { w.database() },
			unknown: (*world).away,
		},
		"postgres-partitions": {
			finding: func(w *world) {
				w.database()
				w.partitions()
				w.consumer("bills", "orders")
				w.exec("DROP TABLE inbox" + time.Now().UTC().AddDate(0, 0, 1).Format("_p20060102"))
			}, says: "missing: inbox_p", mends: `"make_partition"('inbox', 'inbox_p`,
			ok: func(w *world) { // without a consumer there is no inbox
				w.database()
				w.partitions()
				w.exec("DROP TABLE inbox" + time.Now().UTC().AddDate(0, 0, 1).Format("_p20060102"))
			},
			unknown: (*world).poor,
		},
		"postgres-default-partition": {
			finding: func(w *world) {
				w.database()
				w.event("orders", 0)
			}, says: "rows in outbox_default", mends: `"outbox_default"`, stays: "retention deletes the rows",
			ok: func(w *world) {
				w.database()
				w.partitions()
				w.event("orders", 0)
				w.exec("INSERT INTO inbox (event_id, consumer) VALUES (gen_random_uuid(), 'billing')") // of another producer: no day
			},
			unknown: (*world).poor,
		},
	})
}

func TestNeededStandbys(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]int64{
		"": 0, " ": 0, "a": 1, "*": 1, "a, b": 1, "1 (a)": 1, "2 (a, b)": 2, "FIRST 2 (a,b,c)": 2, "any 3(a,b,c)": 3, "ANY 12 (*)": 12, `"2 (a)"`: 1, "first": 1, "any, first": 1,
	} {
		if got := neededStandbys(names); got != want {
			t.Errorf("%q: got %d, want %d", names, got, want)
		}
	}
}

// One replica is not enough where commits wait for two.
func TestStandbysAreCounted(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]Status{"a": OK, "FIRST 1 (a, b)": OK, "2 (a, b)": Finding, "ANY 2 (a, b)": Finding} {
		t.Run(names, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, config: Config{Only: []string{"postgres-standby"}}}
			_, pool := ownServer(w, map[string]string{"synchronous_standby_names": names})
			w.also(Database{Pool: pool})
			w.follow(pool, "a")
			poll.Until(t, "the replica counts", func() bool {
				r := w.examine().Results
				return len(r) == 1 && r[0].Status == want && strings.Contains(r[0].Observed, "1 s")
			})
		})
	}
}

// follow connects to a server as a replica does, until the test ends.
func (w *world) follow(pool *pgxpool.Pool, name string) {
	w.Helper()
	config := pool.Config().ConnConfig.Config
	config.RuntimeParams = map[string]string{"replication": "true", "application_name": name}
	conn, err := pgconn.ConnectConfig(w.Context(), &config)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close(context.Background()) })
	identity, err := conn.Exec(w.Context(), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		w.Fatal(err)
	}
	timeline, position := string(identity[0].Rows[0][1]), string(identity[0].Rows[0][2])
	conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + position + " TIMELINE " + timeline})
	for started := false; !started; {
		if err := conn.Frontend().Flush(); err != nil {
			w.Fatal(err)
		}
		message, err := conn.ReceiveMessage(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		_, started = message.(*pgproto3.CopyBothResponse)
	}
	// Standby status update: all that was sent is written, flushed and applied.
	var high, low uint32
	if _, err := fmt.Sscanf(position, "%X/%X", &high, &low); err != nil {
		w.Fatal(err)
	}
	status := []byte{'r'}
	for range 3 {
		status = binary.BigEndian.AppendUint64(status, uint64(high)<<32|uint64(low))
	}
	status = append(status, make([]byte, 9)...) // its time, and no wish for an answer
	conn.Frontend().Send(&pgproto3.CopyData{Data: status})
	if err := conn.Frontend().Flush(); err != nil {
		w.Fatal(err)
	}
}

// What mends a missing partition mends it.
func TestMakePartitionMendsAMissingPartition(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"postgres-partitions"}}}
	w.database()
	findings := w.examine().Findings()
	if len(findings) != 1 {
		t.Fatalf("got %+v", findings)
	}
	if _, err := w.pool.Exec(context.Background(), findings[0].Mend, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if r := w.examine(); len(r.Findings())+len(r.Unknown()) > 0 {
		t.Errorf("got %+v", r.Results)
	}
}
