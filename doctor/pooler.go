package doctor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// probeStatement is the name of the statement that postgresPooler prepares.
const probeStatement = "rocketflow_doctor"

func postgresPooler(ctx context.Context, d *database) []Result {
	first, err := d.Pool.Acquire(ctx)
	if err != nil {
		return one(d.cannot(err))
	}
	defer first.Release()
	before, err := d.backend(ctx, first)
	switch {
	case err != nil:
		return one(d.cannot(err))
	case before == first.Conn().PgConn().PID():
		return one(ok("connections are direct"))
	}
	perTransaction, err := d.sharesBackends(ctx, first, before)
	switch {
	case err != nil:
		return one(d.cannot(err))
	case !perTransaction:
		return one(ok("a pooler gives each connection a backend of its own"))
	}
	switch m := d.Pool.Config().ConnConfig.DefaultQueryExecMode; m {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return one(ok("a pooler gives each transaction a backend; the service uses no prepared statements (%v)", m))
	}
	follows, err := d.followsStatements(ctx, first)
	switch {
	case err != nil:
		return one(d.cannot(err))
	case follows:
		return one(ok("a pooler gives each transaction a backend, and follows prepared statements"))
	}
	return one(found("a pooler gives each transaction another backend and doesn't follow prepared statements, which the service uses",
		"no prepared statements, or a pooler that follows them", "# in DATABASE_URL:\ndefault_query_exec_mode=exec"))
}

// backend returns the process that answers on a connection.
func (d *database) backend(ctx context.Context, on *pgxpool.Conn) (pid uint32, err error) {
	var n int32
	err = on.QueryRow(ctx, d.sql.Get("Backend"), mode).Scan(&n)
	return uint32(n), err
}

// sharesBackends reports whether a connection gets the backend that another one has used before. It repeats itself, because other
// connections may get it first.
func (d *database) sharesBackends(ctx context.Context, first *pgxpool.Conn, before uint32) (bool, error) {
	second, err := d.Pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer second.Release()
	for range 5 {
		shares := false
		err := pgx.BeginTxFunc(ctx, second, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			held, err := d.backend(ctx, second)
			if err != nil {
				return err
			}
			now, err := d.backend(ctx, first)
			shares = held == before || now != before
			return err
		})
		if err != nil || shares {
			return shares, err
		}
	}
	return false, nil
}

// followsStatements reports whether a pooler gives a prepared statement a name of its own, to prepare it on other backends as well.
func (d *database) followsStatements(ctx context.Context, on *pgxpool.Conn) (follows bool, err error) {
	err = pgx.BeginTxFunc(ctx, on, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := on.Conn().PgConn().Prepare(ctx, probeStatement, "SELECT 1", nil); err != nil {
			return fmt.Errorf("prepare a statement: %w", err)
		}
		var own bool
		if err := tx.QueryRow(ctx, d.sql.Get("HasStatement"), mode, probeStatement).Scan(&own); err != nil {
			return err
		}
		if follows = !own; own {
			_, err := tx.Exec(ctx, "DEALLOCATE "+probeStatement, pgx.QueryExecModeSimpleProtocol)
			return err
		}
		return nil
	})
	return follows, err
}
