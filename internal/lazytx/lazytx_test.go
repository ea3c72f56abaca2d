package lazytx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tracer records what is sent by itself, and the size of each batch.
type tracer struct {
	mu   sync.Mutex
	sent []string
}

func (t *tracer) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, what)
}

func (t *tracer) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	sent := t.sent
	t.sent = nil
	return sent
}

func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	t.add(d.SQL)
	return ctx
}
func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (t *tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	t.add(fmt.Sprintf("batch of %d", d.Batch.Len()))
	return ctx
}
func (t *tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (t *tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

type bundle struct {
	*testing.T
	pool   *pgxpool.Pool
	tracer *tracer
}

func setup(t *testing.T) *bundle {
	t.Helper()
	pool, _ := testdb.Schema(t)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE entry (id int PRIMARY KEY, later int UNIQUE DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	b := &bundle{t, nil, &tracer{}}
	config := pool.Config()
	config.ConnConfig.Tracer = b.tracer
	traced, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(traced.Close)
	b.pool = traced
	return b
}

func (b *bundle) begin(options pgx.TxOptions) *lazytx.Tx {
	b.Helper()
	conn, err := b.pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.tracer.take()
	return lazytx.New(conn, options)
}

func (b *bundle) sent(want ...string) {
	b.Helper()
	if got := b.tracer.take(); !slices.Equal(got, want) {
		b.Errorf("sent %q, want %q", got, want)
	}
}

// rows counts them, and checks that no connection is still acquired.
func (b *bundle) rows(want int) {
	b.Helper()
	if n := b.pool.Stat().AcquiredConns(); n != 0 {
		b.Errorf("%d connections were not released", n)
	}
	var n int
	if err := b.pool.QueryRow(context.WithoutCancel(b.Context()), "SELECT count(*) FROM entry").Scan(&n); err != nil || n != want {
		b.Errorf("%d rows (%v), want %d", n, err, want)
	}
	b.tracer.take()
}

func insert(id int) *pgx.Batch {
	batch := &pgx.Batch{}
	batch.Queue("INSERT INTO entry (id) VALUES ($1)", id)
	return batch
}

func TestBeginGoesWithTheFirstStatement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	for name, first := range map[string]func(*lazytx.Tx) error{
		"exec": func(tx *lazytx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO entry (id) VALUES ($1)", 1)
			return err
		},
		"row": func(tx *lazytx.Tx) error {
			return tx.QueryRow(ctx, "INSERT INTO entry (id) VALUES ($1) RETURNING id", 1).Scan(new(int))
		},
		"batch": func(tx *lazytx.Tx) error { return tx.SendBatch(ctx, insert(1)).Close() },
	} {
		tx := b.begin(pgx.TxOptions{})
		if err := first(tx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.sent("batch of 2")
		if tx.TxStatus() != 'T' || tx.Gone() || tx.IsClosed() {
			t.Errorf("%s: status %c", name, tx.TxStatus())
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Errorf("%s: rollback: %v", name, err)
		}
		b.rows(0)
	}
}

func TestCommitGoesWithTheLastStatement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	tx := b.begin(pgx.TxOptions{})
	if open, err := tx.CommitWith(ctx, insert(1)); open || err != nil {
		t.Fatalf("open %v, error %v", open, err)
	}
	b.sent("batch of 3")
	b.rows(1)
	tx = b.begin(pgx.TxOptions{})
	if _, err := tx.Exec(ctx, "INSERT INTO entry (id) VALUES ($1)", 2); err != nil {
		t.Fatal(err)
	}
	if open, err := tx.CommitWith(ctx, insert(3)); open || err != nil {
		t.Fatalf("open %v, error %v", open, err)
	}
	b.sent("batch of 2", "batch of 2")
	b.rows(3)
}

func TestNothingIsSentForAnEmptyTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, end := range []func(*lazytx.Tx) error{
		func(tx *lazytx.Tx) error { return tx.Commit(t.Context()) },
		func(tx *lazytx.Tx) error { return tx.Rollback(t.Context()) },
	} {
		if err := end(b.begin(pgx.TxOptions{})); err != nil {
			t.Error(err)
		}
		b.sent()
		b.rows(0)
	}
}

func TestOptionsApply(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	tx := b.begin(pgx.TxOptions{IsoLevel: pgx.Serializable})
	var level string
	if err := tx.QueryRow(ctx, "SHOW transaction_isolation").Scan(&level); err != nil || level != "serializable" {
		t.Errorf("isolation is %q (%v)", level, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
	tx = b.begin(pgx.TxOptions{IsoLevel: "nonsense"})
	if _, err := tx.Exec(ctx, "INSERT INTO entry (id) VALUES ($1)", 1); err == nil {
		t.Error("options that Postgres refuses are ignored")
	}
	if err := tx.Commit(ctx); !lazytx.NotCommitted(err) {
		t.Errorf("commit after BEGIN failed: %v", err)
	}
	b.rows(0)
}

// A statement that fails together with COMMIT leaves the transaction open; COMMIT's own failure ends it.
func TestErrorsOfCommitAreReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	if err := lazytx.On(b.pool).SendBatch(ctx, insert(1)).Close(); err != nil {
		t.Fatal(err)
	}

	tx := b.begin(pgx.TxOptions{})
	open, err := tx.CommitWith(ctx, insert(1))
	var pgErr *pgconn.PgError
	if !open || !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Errorf("a statement that fails: open %v, %v", open, err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Error(err)
	}
	b.rows(1)

	deferred := &pgx.Batch{}
	deferred.Queue("INSERT INTO entry VALUES ($1, 1), ($2, 1)", 5, 6)
	tx = b.begin(pgx.TxOptions{})
	if open, err := tx.CommitWith(ctx, deferred); open || !lazytx.NotCommitted(err) {
		t.Errorf("a COMMIT that fails: open %v, %v", open, err)
	}
	b.rows(1)

	// An earlier statement failed: Postgres would respond to COMMIT with ROLLBACK.
	tx = b.begin(pgx.TxOptions{})
	_, _ = tx.Exec(ctx, "INSERT INTO entry (id) VALUES ($1)", 1)
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxCommitRollback) || !lazytx.NotCommitted(err) {
		t.Errorf("commit of a failed transaction: %v", err)
	}
	b.rows(1)

	gone, cancel := context.WithCancel(ctx)
	tx = b.begin(pgx.TxOptions{})
	if _, err := tx.Exec(gone, "INSERT INTO entry (id) VALUES ($1)", 2); err != nil {
		t.Error(err)
	}
	cancel()
	if err := tx.Commit(gone); !errors.Is(err, context.Canceled) || !lazytx.NotCommitted(err) {
		t.Errorf("commit with a canceled context: %v", err)
	}
	b.rows(1)

	tx = b.begin(pgx.TxOptions{})
	if _, err := tx.Exec(ctx, "INSERT INTO entry (id) VALUES ($1)", 2); err != nil {
		t.Error(err)
	}
	_, _ = tx.Exec(ctx, "ROLLBACK")
	if !tx.Gone() {
		t.Error("a transaction that a statement has ended is not gone")
	}
	if open, err := tx.CommitWith(ctx, insert(3)); !open || !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("commit after ROLLBACK: open %v, %v", open, err)
	}
	_ = tx.Rollback(ctx)
	b.rows(1)
}

func TestNotCommittedNeedsProof(t *testing.T) {
	t.Parallel()
	for want, errs := range map[bool][]error{
		true:  {pgx.ErrTxCommitRollback, pgx.ErrTxClosed, &pgconn.PgError{SeverityUnlocalized: "ERROR"}},
		false: {io.ErrUnexpectedEOF, context.DeadlineExceeded, &pgconn.PgError{SeverityUnlocalized: "FATAL"}},
	} {
		for _, err := range errs {
			if got := lazytx.NotCommitted(fmt.Errorf("commit: %w", err)); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
}

// What holds on to the begun transaction has COMMIT go by itself.
func TestSavepointsAndLargeObjectsCommitSeparately(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	tx := b.begin(pgx.TxOptions{})
	if tx.CommitsSeparately() {
		t.Error("a new transaction commits separately")
	}
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := savepoint.Exec(ctx, "INSERT INTO entry (id) VALUES (1)"); err != nil {
		t.Error(err)
	}
	if err := savepoint.Commit(ctx); err != nil {
		t.Error(err)
	}
	if !tx.CommitsSeparately() {
		t.Error("a transaction with a savepoint doesn't commit separately")
	}
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
	b.rows(1)
	tx = b.begin(pgx.TxOptions{})
	objects := tx.LargeObjects()
	if _, err := objects.Create(ctx, 0); err != nil || !tx.CommitsSeparately() {
		t.Errorf("large objects: %v", err)
	}
	_ = tx.Rollback(ctx)
	if tx = b.begin(pgx.TxOptions{CommitQuery: "commit and no chain"}); !tx.CommitsSeparately() {
		t.Error("a transaction with a commit statement doesn't commit separately")
	}
	_ = tx.Rollback(ctx)
}

func TestAnEndedTransactionIsClosed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	tx := b.begin(pgx.TxOptions{})
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, exec := tx.Exec(ctx, "SELECT $1::int", 1)
	rows, query := tx.Query(ctx, "SELECT 1")
	rows.Close()
	_, prepare := tx.Prepare(ctx, "p", "SELECT 1")
	_, begin := tx.Begin(ctx)
	_, copyFrom := tx.CopyFrom(ctx, pgx.Identifier{"entry"}, []string{"id"}, pgx.CopyFromRows(nil))
	objects := tx.LargeObjects()
	_, create := objects.Create(ctx, 0)
	_, commitWith := tx.CommitWith(ctx, insert(1))
	for name, err := range map[string]error{
		"Exec": exec, "Query": query, "Prepare": prepare, "Begin": begin, "CopyFrom": copyFrom, "LargeObjects": create, "CommitWith": commitWith,
		"QueryRow": tx.QueryRow(ctx, "SELECT 1").Scan(new(int)), "SendBatch": tx.SendBatch(ctx, insert(1)).Close(),
		"Commit": tx.Commit(ctx), "Rollback": tx.Rollback(ctx),
	} {
		if !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.rows(0)
}
