package outbox

import (
	"slices"
	"testing"
)

func TestTransactionControlIsRecognized(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		"":                                   false,
		"SELECT 1":                           false,
		"SELECT 1;":                          false,
		"INSERT INTO t VALUES ('savepoint')": false,
		"UPDATE commits SET rollback = 1":    false,
		"SAVEPOINT a":                        true,
		" \n\tsavepoint a;":                  true,
		"-- name: x\nRollback To a":          true,
		"/* a; b */ rollback to savepoint a": true,
		"/* a /* b */ c */ release a":        true,
		"/* no end: commit":                  true,
		"SELECT 1; SAVEPOINT a":              true,
		"select 1; select 2":                 false,
		"; ABORT":                            true,
		"END":                                true,
		"PREPARE TRANSACTION 'a'":            true,
		"commit and chain":                   true,
	} {
		if got := isTransactionControl(sql); got != want {
			t.Errorf("isTransactionControl(%q) is %v", sql, got)
		}
	}
	if got := rolledBackTo(`ROLLBACK TO sp_1; rollback work to savepoint "sp_22"; ROLLBACK TO a; ROLLBACK`); !slices.Equal(got, []int64{1, 22}) {
		t.Errorf("rolled back to %v, want 1 and 22", got)
	}
}

func BenchmarkIsTransactionControl(b *testing.B) {
	for b.Loop() {
		_ = isTransactionControl("INSERT INTO business (account, cents) VALUES ($1, $2)")
	}
}
