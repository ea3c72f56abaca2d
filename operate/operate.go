package operate

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed operate.sql
var operateSQL string

// allSQL is every statement of the package.
func allSQL() string {
	return operateSQL + eventSQL + streamSQL + timeoutsSQL + backlogSQL + rejectedSQL + resendSQL + sagaSQL + waitingSQL + whySQL + reconcileSQL +
		auditSQL + pauseSQL + overviewSQL + eventPageSQL + parkedPageSQL + sagaPageSQL + waitingPageSQL
}

const (
	// MaxCount is the highest value of a count in a report. A count of MaxCount means that many or more.
	MaxCount = 100_000
	// DefaultLimit is the maximum length of a list whose filter has no Limit.
	DefaultLimit = 1000

	// maxRows bounds lists that grow with the number of consumers and topics, which are few.
	maxRows = 1000
	// reportTimeout ends a statement of a report that takes unexpectedly long: an old snapshot delays vacuum and the sweep.
	reportTimeout = "10s"
)

// Sender is the part of a broker that Resend needs. *rocketmq.Client implements it.
type Sender interface {
	Send(ctx context.Context, m broker.Message) (broker.Receipt, error)
}

// Config configures an Operator.
type Config struct {
	// Pool connects to the database of the service. Required. Methods that only read work with a role that has USAGE on
	// the schema and SELECT on its tables.
	Pool *pgxpool.Pool
	// Schema is the Postgres schema of the service's rocketflow tables.
	// Defaults to rocketflow.DefaultSchema.
	Schema string
	// Broker is where Resend sends events. Only Resend requires it.
	Broker Sender
	// ResendRate is the maximum number of events that Resend sends per second.
	// Defaults to 500.
	ResendRate float64
	// Actor is the name of who makes changes, in the audit, for contexts without one of WithActor.
	// Defaults to the role of Postgres.
	Actor string
	// OnAudit is called for each entry of the audit, in the transaction that makes the change and has written the entry: to publish
	// the entry as an event, for example. If it returns an error, the change is rolled back.
	// Defaults to none.
	OnAudit func(ctx context.Context, tx pgx.Tx, e AuditEntry) error
}

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.ResendRate = cmp.Or(c.ResendRate, 500)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("operate.Config.Pool", "missing")
	case c.ResendRate < 0:
		return valid.Fieldf("operate.Config.ResendRate", "%v: want more than 0", c.ResendRate)
	}
	return nil
}

// Operator reports on the tables of one schema and changes them on behalf of a person. It needs no running service: events
// that it makes due are processed within seconds by the processes of the service. All methods are safe for concurrent use.
type Operator struct {
	config Config
	sql    queries.Set
	inbox  inbox.Store
}

// New returns an Operator. It doesn't connect to the database. An error is a *rocketflow.FieldError.
func New(c Config) (*Operator, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Operator{config: c, sql: queries.Parse(allSQL(), c.Schema), inbox: inbox.New(c.Schema)}, nil
}

// db runs single statements.
func (o *Operator) db() lazytx.DB { return lazytx.On(o.config.Pool) }

// Schema returns the schema of the Operator.
func (o *Operator) Schema() string { return o.config.Schema }

// Now returns the time by the database's clock, which all times in reports are from.
func (o *Operator) Now(ctx context.Context) (now time.Time, err error) {
	if err := o.db().QueryRow(ctx, o.sql.Get("Now")).Scan(&now); err != nil {
		return now, fmt.Errorf("read the database's clock: %w", err)
	}
	return now, nil
}

// Schemas returns the names of the schemas of the database that hold rocketflow's tables, in alphabetical order and at most
// limit of them. The Operator's own schema need not exist.
func (o *Operator) Schemas(ctx context.Context, limit int) ([]string, error) {
	rows, err := o.db().Query(ctx, o.sql.Get("Schemas"), limit)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	return list, nil
}

// Usage is what the processes of a service have used so far, by what they have recorded: the topics of handlers and of events that have an
// order. Topics of other events aren't among them.
type Usage struct {
	Service   string   `json:"service"` // empty: none has claimed the schema
	Consumers []string `json:"consumers"`
	Topics    []string `json:"topics"`
}

// Usage reports which topics and consumers a service has used.
func (o *Operator) Usage(ctx context.Context) (*Usage, error) {
	var u Usage
	err := o.read(ctx, func(s snapshot) error {
		type entry struct{ kind, name string }
		entries, err := collect(ctx, s, "Usage", func(row pgx.CollectableRow, e *entry) error { return row.Scan(&e.kind, &e.name) }, maxRows)
		for _, e := range entries {
			switch e.kind {
			case "service":
				u.Service = e.name
			case "consumer":
				u.Consumers = append(u.Consumers, e.name)
			case "topic":
				u.Topics = append(u.Topics, e.name)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what the service uses: %w", err)
	}
	return &u, nil
}

// snapshot reads one state of the database.
type snapshot struct {
	tx  pgx.Tx
	sql queries.Set
}

// read calls fn with a snapshot, which is valid until fn returns. It never writes and never waits for a lock.
func (o *Operator) read(ctx context.Context, fn func(snapshot) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, o.config.Pool, options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, o.sql.Get("ReportSettings"), reportTimeout); err != nil {
			return fmt.Errorf("set statement_timeout: %w", err)
		}
		return fn(snapshot{tx, o.sql})
	})
}

// inTx calls fn in a transaction that changes something.
func (o *Operator) inTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return lazytx.InTx(ctx, o.config.Pool, fn)
}

// collect runs a named query and scans each row with scan.
func collect[T any](ctx context.Context, s snapshot, query string, scan func(pgx.CollectableRow, *T) error, args ...any) ([]T, error) {
	rows, err := s.tx.Query(ctx, s.sql.Get(query), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (v T, err error) {
		err = scan(row, &v)
		return v, err
	})
}

// orZero returns the zero time for null.
func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// orNull returns null for the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
