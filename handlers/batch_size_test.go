package handlers

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestBatchSizeFollowsFailureAndSuccess(t *testing.T) {
	t.Parallel()
	b := newBatchSize(64)
	if one := newBatchSize(1); b.limit != batchStart || one.limit != 1 {
		t.Fatalf("lanes begin with %d and %d", b.limit, one.limit)
	}
	for range 10 {
		b.failed(errors.New("handler"))
	}
	if b.limit != 1 {
		t.Fatalf("limit %d after failures, want 1", b.limit)
	}
	for range 6 * growAfter {
		b.succeeded()
	}
	if b.limit != 64 {
		t.Errorf("limit %d after successes, want 64", b.limit)
	}
	b.succeeded()
	if b.limit != 64 {
		t.Errorf("limit %d, more than the most", b.limit)
	}
}

// Each deadlock costs the time in which Postgres finds it, so a lane that meets them tries larger batches less and less.
func TestBatchSizeGrowsSlowlyAfterConflicts(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"40P01", "40001"} {
		b := newBatchSize(64)
		conflicts := 0
		for range 10_000 {
			if b.limit > 2 {
				conflicts++
				b.failed(&pgconn.PgError{Code: code})
			} else {
				b.succeeded()
			}
		}
		if conflicts > 60 {
			t.Errorf("%s: %d conflicts in 10,000 turns", code, conflicts)
		}
		for range 6 * growAfterMax {
			b.succeeded()
		}
		if b.limit != 64 {
			t.Errorf("%s: limit %d once the conflicts are over, want 64", code, b.limit)
		}
	}
}
