package testdb

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/migrations"
)

// template is a database with one migrated schema, of which tests get copies: a copy takes a fifth of the time of the migrations, and what
// a test changes in its tables concerns no connection of another test. Where a copy is made, the schema gets a name of its own, so that
// names derived from it stay unique at the broker.
type template struct {
	kind       string // a part of its name
	partitions bool   // it has those that a service makes when it starts
	clock      bool   // it has a clock

	mu   sync.Mutex
	name string // "" until this process has made or found it
}

var (
	migrated    = &template{kind: "migrated"}
	partitioned = &template{kind: "partitioned", partitions: true}
	clocked     = &template{kind: "clocked", partitions: true, clock: true}
)

// partitionsAhead are the partitioned tables, and for how many days after today services make their partitions.
var partitionsAhead = map[string]int{"outbox": 7, "outbox_ack": 7, "timeout_history": 7, "inbox": 2}

// templateSchema is the name of the schema in each template. No other text in the bodies of its functions contains it.
const templateSchema = "test_template"

// copy creates a database like the template for one test, and returns its URL and the name of its schema. The database is dropped when
// the test ends.
func (tp *template) copy(t testing.TB) (databaseURL, schema string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	schema = name()
	databaseURL = withDatabase(t, schema)
	if err := tp.copyAs(ctx, t, schema, databaseURL); err != nil {
		t.Fatalf("copy the template of databases: %v", err)
	}
	return databaseURL, schema
}

func (tp *template) copyAs(ctx context.Context, t testing.TB, schema, databaseURL string) error {
	server, err := pgx.Connect(ctx, URL(t))
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(ctx) }()
	from, err := tp.make(ctx, t, server)
	if err != nil {
		return err
	}
	if _, err := server.Exec(ctx, "CREATE DATABASE "+schema+" TEMPLATE "+from); err != nil {
		return err
	}
	t.Cleanup(func() { Exec(t, "DROP DATABASE "+schema+" WITH (FORCE)") })
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	// Bodies of functions name the schema. All else refers to it by its number.
	_, err = conn.Exec(ctx, strings.NewReplacer("OLD", templateSchema, "NEW", schema).Replace(`
		ALTER SCHEMA OLD RENAME TO NEW;
		UPDATE NEW.installation SET id = DEFAULT;
		DO $do$
		DECLARE definition text;
		BEGIN
			FOR definition IN SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'NEW'::regnamespace LOOP
				EXECUTE replace(definition, 'OLD', 'NEW');
			END LOOP;
		END $do$`))
	return err
}

// make creates the template, unless another process has, and returns its name. There is one for each state of the migrations, and for
// each day, because partitions are those of days.
func (tp *template) make(ctx context.Context, t testing.TB, server *pgx.Conn) (string, error) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	if tp.name != "" {
		return tp.name, nil
	}
	hash, err := hashOfMigrations()
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("template_%s_%08x_%s", tp.kind, hash, time.Now().UTC().Format("20060102"))
	if _, err := server.Exec(ctx, "SELECT pg_advisory_lock(hashtext($1))", name); err != nil {
		return "", err
	}
	var complete bool
	err = server.QueryRow(ctx, "SELECT NOT datallowconn FROM pg_database WHERE datname = $1", name).Scan(&complete)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", err
	}
	if !complete {
		if err := tp.create(ctx, t, server, name); err != nil {
			return "", err
		}
	}
	if _, err := server.Exec(ctx, "SELECT pg_advisory_unlock(hashtext($1))", name); err != nil {
		return "", err
	}
	tp.name = name
	return name, nil
}

func (tp *template) create(ctx context.Context, t testing.TB, server *pgx.Conn, name string) error {
	rows, err := server.Query(ctx, `SELECT datname FROM pg_database
		WHERE datname = $1 OR datname ~ '^template_[a-z]+_[0-9a-f]{8}_[0-9]{8}$' AND right(datname, 8) < $2`, // of a process that was killed; of days ago
		name, time.Now().UTC().AddDate(0, 0, -1).Format("20060102"))
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range old {
		if _, err := server.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(withDatabase(t, name))
	if err != nil {
		return err
	}
	config.ConnConfig.RuntimeParams["search_path"] = templateSchema
	if tp.clock {
		config.ConnConfig.RuntimeParams["search_path"] = pgclock.SearchPath(templateSchema)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+templateSchema); err != nil {
		return err
	}
	if tp.clock {
		if err := pgclock.Install(ctx, pool, templateSchema); err != nil {
			return err
		}
	}
	if err := migrations.Up(ctx, pool, templateSchema); err != nil {
		return err
	}
	if tp.clock {
		if err := pgclock.Adopt(ctx, pool, templateSchema); err != nil {
			return err
		}
	}
	if tp.partitions {
		for table, days := range partitionsAhead {
			if _, err := partition.Ensure(ctx, pool, partition.Table{Schema: templateSchema, Name: table}, time.Now(), days); err != nil {
				return err
			}
		}
	}
	pool.Close() // a database with connections can't be a template
	_, err = server.Exec(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false")
	return err
}

// hashOfMigrations returns a number of what is in the sources of the migrations.
func hashOfMigrations() (uint32, error) {
	_, file, _, _ := runtime.Caller(0)
	sources, err := filepath.Glob(filepath.Join(filepath.Dir(file), "../../migrations/0*.sql"))
	if err == nil && len(sources) == 0 {
		err = errors.New("no sources of migrations beside " + file)
	}
	sum := crc32.NewIEEE()
	for _, source := range sources {
		text, e := os.ReadFile(source)
		_, _ = sum.Write(text)
		err = errors.Join(err, e)
	}
	return sum.Sum32(), err
}

// withDatabase returns DATABASE_URL with another name of the database.
func withDatabase(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(URL(t))
	if err != nil {
		t.Fatalf("DATABASE_URL: %v", err)
	}
	u.Path = "/" + database
	return u.String()
}
