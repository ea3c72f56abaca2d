package outbox_test

import (
	"context"
	"testing"

	"github.com/rocketflow/rocketflow"
)

// TxStatus and IsClosed don't make a transaction record eagerly, as Conn does.
func TestTxStatusDoesntExposeTheConnection(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	rows := func(ctx context.Context, tx rocketflow.Tx) (n int) {
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM outbox").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	err := b.outbox.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO account VALUES ('a', 1)"); err != nil {
			return err
		}
		status, ok := tx.(interface {
			TxStatus() byte
			IsClosed() bool
		})
		if !ok || status.TxStatus() != 'T' || status.IsClosed() {
			t.Error("the transaction doesn't return its status")
		}
		if err := tx.Publish(ctx, credited{"a", 1}); err != nil {
			return err
		}
		if n := rows(ctx, tx); n != 0 {
			t.Errorf("%d rows before the commit", n)
		}
		_ = tx.Conn()
		if n := rows(ctx, tx); n != 1 {
			t.Errorf("%d rows once the connection was handed out, want 1", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "outbox"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}
