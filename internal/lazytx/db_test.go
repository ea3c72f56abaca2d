package lazytx_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

const level = "SELECT pg_catalog.current_setting('transaction_isolation') || $1::text"

// Whatever the default level and the mode of pgx are, each statement runs at read committed, in one round trip.
func TestOwnStatementsAreReadCommitted(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.pool = testdb.Like(t, b.pool, func(c *pgxpool.Config) {
				c.ConnConfig.DefaultQueryExecMode = mode
				c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
			})
			ctx, db := t.Context(), lazytx.On(b.pool)
			const want = "read committed!"

			var got string
			if err := db.QueryRow(ctx, level, "!").Scan(&got); err != nil || got != want {
				t.Errorf("QueryRow: %q (%v)", got, err)
			}
			b.sent("batch of 3")

			rows, err := db.Query(ctx, level+" FROM pg_catalog.generate_series(1, 3)", "!")
			if err != nil {
				t.Fatal(err)
			}
			all, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || !slices.Equal(all, []string{want, want, want}) {
				t.Errorf("Query: %q (%v)", all, err)
			}
			b.sent("batch of 3")

			tag, err := db.Exec(ctx, "INSERT INTO entry (id) SELECT n FROM pg_catalog.generate_series(1, $1::int) n", 3)
			if err != nil || tag.RowsAffected() != 3 {
				t.Errorf("Exec: %v (%v)", tag, err)
			}
			b.sent("batch of 3")
			b.rows(3)

			batch := insert(4)
			batch.Queue(level, "!").QueryRow(func(row pgx.Row) error { return row.Scan(&got) })
			if err := db.SendBatch(ctx, batch).Close(); err != nil || got != want {
				t.Errorf("SendBatch: %q (%v)", got, err)
			}
			b.sent("batch of 4")
			b.rows(4)
		})
	}
}

// A statement that fails, in whatever place, takes no effect and leaves no transaction or connection behind.
func TestOwnStatementsThatFail(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.pool = testdb.Mode(t, b.pool, mode)
			ctx, db := t.Context(), lazytx.On(b.pool)
			if _, err := db.Exec(ctx, "INSERT INTO entry (id) VALUES ($1::int)", 1); err != nil {
				t.Fatal(err)
			}
			failed := func(what, code string, err error) {
				t.Helper()
				var pgErr *pgconn.PgError
				if !errors.As(err, &pgErr) || pgErr.Code != code {
					t.Errorf("%s: %v, want SQLSTATE %s", what, err, code)
				}
				b.rows(1)
			}
			const duplicate, divides, unknown = "23505", "22012", "42P01"

			_, err := db.Exec(ctx, "INSERT INTO entry (id) VALUES ($1::int)", 1)
			failed("Exec", duplicate, err)
			failed("QueryRow", duplicate, db.QueryRow(ctx, "INSERT INTO entry (id) VALUES ($1::int) RETURNING id", 1).Scan(new(int)))
			_, err = db.Exec(ctx, "INSERT INTO nowhere VALUES ($1::int)", 1)
			failed("Exec on no table", unknown, err)
			failed("QueryRow on no table", unknown, db.QueryRow(ctx, "SELECT id FROM nowhere").Scan(new(int)))

			query := func(sql string) error {
				rows, err := db.Query(ctx, sql, 2)
				if err != nil {
					return err
				}
				_, err = pgx.CollectRows(rows, pgx.RowTo[int])
				return err
			}
			failed("Query at its last row", divides, query("SELECT 6 / (n - $1::int) FROM pg_catalog.generate_series(0, 2) n"))
			failed("Query at COMMIT", duplicate, query("INSERT INTO entry VALUES (2, 1), (3, 1), ($1::int + 2, 2) RETURNING id"))

			second := insert(2)
			second.QueuedQueries = append(second.QueuedQueries, insert(1).QueuedQueries...)
			failed("SendBatch", duplicate, db.SendBatch(ctx, second).Close())

			if err := db.QueryRow(ctx, "SELECT id FROM entry WHERE id = $1::int", 7).Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
				t.Errorf("no row: %v", err)
			}
			b.rows(1)
			rows, err := db.Query(ctx, "SELECT n FROM pg_catalog.generate_series(1, $1::int) n", 1000)
			if err != nil || !rows.Next() {
				t.Fatal(err)
			}
			rows.Close() // before its end
			b.rows(1)

			gone, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := db.Exec(gone, "INSERT INTO entry (id) VALUES ($1::int)", 2); !errors.Is(err, context.Canceled) {
				t.Errorf("a canceled context: %v", err)
			}
			b.rows(1)
		})
	}
}

// A statement that is the victim of a deadlock runs again.
func TestOwnStatementsRunAgainAfterADeadlock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	if _, err := b.pool.Exec(ctx, "INSERT INTO entry (id) VALUES (1), (2)"); err != nil {
		t.Fatal(err)
	}
	// The other transaction locks 2, then waits for 1 with a long deadlock_timeout, so that it is not the victim.
	other, err := testdb.With(t, b.pool, map[string]string{"deadlock_timeout": "1min"}).Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(ctx, "UPDATE entry SET later = 12 WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() {
		_, err := lazytx.On(b.pool).Exec(ctx, "UPDATE entry SET later = id + $1::int WHERE id IN (1, 2)", 20)
		first <- err
	}()
	poll.Until(t, "the statement waits for the other transaction", func() bool {
		var waits bool
		err := b.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_locks h USING (pid)
			WHERE NOT l.granted AND h.relation = 'entry'::regclass)`).Scan(&waits)
		return err == nil && waits
	})
	if _, err := other.Exec(ctx, "UPDATE entry SET later = 11 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := other.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Errorf("the statement: %v", err)
	}
	var sum int
	if err := b.pool.QueryRow(ctx, "SELECT sum(later) FROM entry").Scan(&sum); err != nil || sum != 43 {
		t.Errorf("the sum is %d (%v), want 43", sum, err)
	}
}
