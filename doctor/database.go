package doctor

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/operate"
)

//go:embed doctor.sql
var doctorSQL string

// Limits of lists.
const (
	maxSchemas = 100
	maxList    = 1000
	maxCount   = 10_000 // a count of maxCount means that many or more
)

// database is a database with what was read of it at the beginning.
type database struct {
	Database
	x       *examination
	name    string
	sql     queries.Set // for no schema
	err     error       // why it can't be examined
	schemas []*schema

	version  int    // such as 150004
	role     string // of the pool
	stats    bool   // whether the role sees all columns of other roles' sessions
	replica  bool
	lag      time.Duration // of the host's clock behind that of Postgres
	accuracy time.Duration // of lag

	sessions    []session // those with an open transaction, the oldest first
	hidden      int64     // number of sessions whose transactions the role may not see
	sessionsErr error     // why they can't be read
}

// schema is a schema with rocketflow's tables.
type schema struct {
	database  *database
	name      string
	sql       queries.Set
	err       error  // why its tables can't be read
	id        string // of the installation
	source    string // the service that it belongs to; empty: none yet
	consumers []consumer

	farthest    time.Duration // until the last timeout that was handed over to the broker is due
	farthestErr error         // why it can't be read
	swept       bool          // whether a process holds the lease of the outbox's sweep: the service runs

	backlogOnce sync.Once
	backlog     *operate.Backlog
	backlogErr  error
}

// consumer is a consumer that a service has registered.
type consumer struct {
	name      string
	group     string        // at the broker, without the namespace
	retention time.Duration // of its inbox
	topics    []string
	handlers  []handler
}

// handler is a handler that a consumer has registered.
type handler struct{ topic, event string }

func openDatabase(ctx context.Context, x *examination, c Database) *database {
	d := &database{Database: c, x: x, name: c.Name, sql: queries.Parse(doctorSQL, "")}
	config := c.Pool.Config().ConnConfig
	if d.name == "" {
		d.name = net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))) + "/" + config.Database
	}
	ctx, cancel := context.WithTimeout(ctx, x.config.CheckTimeout)
	defer cancel()
	if d.err = d.identify(ctx); d.err != nil {
		return d
	}
	names := c.Schemas
	if names == nil {
		if names, d.err = list[string](ctx, d, d.sql, "Schemas", maxSchemas); d.err != nil {
			return d
		}
	}
	for _, name := range names {
		s := &schema{database: d, name: name, sql: queries.Parse(doctorSQL, name)}
		if !x.config.Pre {
			s.err = s.identify(ctx)
		}
		d.schemas = append(d.schemas, s)
	}
	return d
}

// mode is the mode of all statements: it works with any pooler.
const mode = pgx.QueryExecModeExec

// with returns the arguments of a statement in that mode.
func with(args []any) []any { return append([]any{mode}, args...) }

// identify reads what the server and the role are, and compares the clocks.
func (d *database) identify(ctx context.Context) error {
	err := d.read(ctx, func(tx pgx.Tx) error {
		// The second statement is read for the clock: the first made the connection.
		for range 2 {
			var now time.Time
			asked := time.Now()
			if err := tx.QueryRow(ctx, d.sql.Get("Identify"), mode).Scan(&d.version, &d.role, &d.stats, &d.replica, &now); err != nil {
				return err
			}
			trip := time.Since(asked)
			d.lag, d.accuracy = now.Sub(asked.Add(trip/2)), trip/2
		}
		return nil
	})
	if err == nil {
		d.readSessions(ctx)
	}
	return err
}

// session is a session of the server with an open transaction.
type session struct {
	PID                               int32
	Role, Application, Database, Name string
	Open, Since                       float64 // seconds since its transaction began, and since its state changed
}

// String returns who the session is, without what it executes.
func (s session) String() string {
	return fmt.Sprintf("pid %d, role %s, application %q, database %s, %s", s.PID, s.Role, s.Application, s.Database, s.Name)
}

// readSessions reads which transactions are open.
func (d *database) readSessions(ctx context.Context) {
	if d.sessions, d.sessionsErr = list[session](ctx, d, d.sql, "Sessions", maxList); d.sessionsErr == nil {
		d.sessionsErr = d.row(ctx, d.sql, "HiddenSessions", nil, &d.hidden)
	}
}

// oldest returns the age of the oldest open transaction that the role may see.
func (d *database) oldest() time.Duration {
	if len(d.sessions) == 0 {
		return 0
	}
	return seconds(d.sessions[0].Open)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// identify reads the owner of the schema and its consumers.
func (s *schema) identify(ctx context.Context) error {
	if err := migrations.Check(ctx, s.database.Pool, s.name); err != nil {
		return err
	}
	return s.database.read(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, s.sql.Get("Owner"), mode).Scan(&s.id, &s.source); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, s.sql.Get("Consumers"), mode, maxList)
		if err != nil {
			return err
		}
		s.consumers, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c consumer, err error) {
			var kept float64
			var types []string
			err = row.Scan(&c.name, &c.group, &kept, &c.topics, &types)
			c.group = cmp.Or(c.group, valid.GroupName(s.source)+"-"+c.name) // an older version recorded none: as handlers.Config names it by default
			c.retention = seconds(kept)
			for i := range min(len(types), len(c.topics)) {
				c.handlers = append(c.handlers, handler{c.topics[i], types[i]})
			}
			c.topics = slices.Compact(c.topics)
			return c, err
		})
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, s.sql.Get("LeaseHeld"), mode, "outbox sweep").Scan(&s.swept); err != nil {
			return err
		}
		var farthest float64
		s.farthestErr = tx.QueryRow(ctx, s.sql.Get("FarthestTimeout"), mode, maxCount).Scan(&farthest)
		s.farthest = seconds(farthest)
		return nil
	})
}

// producerGroup returns the name of the service's producer group, which no table has.
func (s *schema) producerGroup() string {
	return cmp.Or(s.database.ProducerGroup, valid.GroupName(s.source))
}

// topics returns the topics that the schema publishes to, reads, and fires timeouts to.
func (s *schema) topics(ctx context.Context) ([]string, error) {
	topics, err := list[string](ctx, s.database, s.sql, "PublishedTopics", maxList)
	if err != nil {
		return nil, err
	}
	timeouts, err := list[string](ctx, s.database, s.sql, "TimeoutTopics", maxCount)
	if err != nil {
		return nil, err
	}
	topics = append(topics, timeouts...)
	for _, c := range s.consumers {
		topics = append(topics, c.topics...)
	}
	slices.Sort(topics)
	return slices.Compact(topics), nil
}

// readBacklog returns the report on the schema's unfinished work, which is read once.
func (s *schema) readBacklog(ctx context.Context) (*operate.Backlog, error) {
	s.backlogOnce.Do(func() {
		var o *operate.Operator
		if o, s.backlogErr = operate.New(operate.Config{Pool: s.database.Pool, Schema: s.name}); s.backlogErr == nil {
			s.backlog, s.backlogErr = o.Backlog(ctx)
		}
	})
	return s.backlog, s.backlogErr
}

// blocked returns why the database can't be examined; empty: it can.
func (d *database) blocked() string {
	if d.err == nil {
		return ""
	}
	return reason(d.err).String()
}

// blocked returns why the tables can't be read; empty: they can.
func (s *schema) blocked() string {
	switch {
	case s.err == nil:
		return ""
	case errors.Is(s.err, rocketflow.ErrNotMigrated):
		return "the tables are missing or of another version: see " + codeMigrated
	}
	return reason(s.err).String()
}

func (s *schema) subject() string { return s.database.name + " schema " + s.name }

// flag returns the flag that names the schema in a command.
func (s *schema) flag() string { return " --schema " + shell(s.name) }

// read calls fn in a read-only transaction with a timeout, which waits for no lock for long. The deadline of ctx bounds it, too.
func (d *database) read(ctx context.Context, fn func(pgx.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, d.Pool, options, func(tx pgx.Tx) error {
		timeout := fmt.Sprintf("SET LOCAL statement_timeout = %d", max(d.x.config.CheckTimeout.Milliseconds(), 1))
		if _, err := tx.Exec(ctx, timeout+"; SET LOCAL lock_timeout = 1000", pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		return fn(tx)
	})
}

// row reads one row of a named query into dest.
func (d *database) row(ctx context.Context, sql queries.Set, query string, args []any, dest ...any) error {
	return d.read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql.Get(query), with(args)...).Scan(dest...) })
}

// now returns the time by Postgres' clock.
func (d *database) now(ctx context.Context) (now time.Time, err error) {
	err = d.row(ctx, d.sql, "Now", nil, &now)
	return now, err
}

// list reads the rows of a named query: values of one column, or structs by the position of their fields.
func list[T any](ctx context.Context, d *database, sql queries.Set, query string, args ...any) (found []T, err error) {
	err = d.read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql.Get(query), with(args)...)
		if err != nil {
			return err
		}
		var zero T
		switch any(zero).(type) {
		case string:
			found, err = pgx.CollectRows(rows, pgx.RowTo[T])
		default:
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		}
		return err
	})
	return found, err
}

// cannot returns the answer to a query that failed, with the right that is missing if that is the cause.
func (s *schema) cannot(err error) Result {
	r := unknown("%s", reason(err))
	if code(err) == insufficientPrivilege {
		role := pgx.Identifier{s.database.role}.Sanitize()
		quoted := pgx.Identifier{s.name}.Sanitize()
		r.Mend = fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;\nGRANT SELECT ON ALL TABLES IN SCHEMA %[1]s TO %[2]s;", quoted, role)
	}
	return r
}

// cannot returns the answer to a query that failed.
func (d *database) cannot(err error) Result { return unknown("%s", reason(err)) }

// SQLSTATE codes.
const (
	insufficientPrivilege = "42501"
	undefinedTable        = "42P01"
	queryCanceled         = "57014"
)

// code returns the SQLSTATE of an error of Postgres, else an empty string.
func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// cause is an error that stopped a check, for its answer.
type cause struct{ err error }

// reason returns why something could not be looked at.
func reason(err error) cause { return cause{err} }

// String says what kind of error it is, and the error.
func (c cause) String() string {
	switch {
	case code(c.err) == insufficientPrivilege, errors.Is(c.err, broker.ErrUnauthorized): // the message names it
		return "a right is missing: " + c.err.Error()
	case code(c.err) == queryCanceled, errors.Is(c.err, context.DeadlineExceeded):
		return "it took too long: " + c.err.Error()
	}
	return c.err.Error()
}
