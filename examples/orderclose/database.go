package orderclose

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/examples/service"
)

//go:embed queries.sql
var queriesSQL string

// database reads the services' tables.
type database struct {
	pool *pgxpool.Pool
	sql  service.Statements
}

func newDatabase(pool *pgxpool.Pool, c Config) *database {
	name := func(schema string) string { return pgx.Identifier{schema}.Sanitize() }
	sql := strings.NewReplacer(
		"{order}", name(c.OrderSchema), "{order_rocketflow}", name(c.OrderRocketflowSchema),
		"{payment}", name(c.PaymentSchema), "{payment_rocketflow}", name(c.PaymentRocketflowSchema),
	).Replace(queriesSQL)
	return &database{pool, service.ParseStatements(sql)}
}

// row reads the only row of a statement.
func (d *database) row(ctx context.Context, name string, args []any, into ...any) error {
	if err := d.pool.QueryRow(ctx, d.sql.Get(name), args...).Scan(into...); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// number reads a statement's only number.
func (d *database) number(ctx context.Context, name string, args ...any) (n int, err error) {
	return n, d.row(ctx, name, args, &n)
}

// durations reads a column of microseconds.
func (d *database) durations(ctx context.Context, name string, args ...any) ([]time.Duration, error) {
	rows, _ := d.pool.Query(ctx, d.sql.Get(name), args...) // rows carry the error
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (time.Duration, error) {
		var micros int64
		err := row.Scan(&micros)
		return time.Duration(micros) * time.Microsecond, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// ahead returns how far Postgres' clock is ahead of this machine's.
func (d *database) ahead(ctx context.Context) (time.Duration, error) {
	best, ahead := time.Hour, time.Duration(0)
	for range 5 {
		var theirs time.Time
		sent := time.Now()
		if err := d.row(ctx, "Clock", nil, &theirs); err != nil {
			return 0, err
		}
		if took := time.Since(sent); took < best {
			best, ahead = took, theirs.Sub(sent.Add(took/2))
		}
	}
	return ahead, nil
}

// open returns how much is outstanding: orders that are not final, or else events without an effect.
func (d *database) open(ctx context.Context, orders []string) (int, error) {
	unfinished, err := d.number(ctx, "Unfinished", orders)
	if err != nil || unfinished > 0 {
		return unfinished, err
	}
	return d.number(ctx, "Lost", orders)
}
