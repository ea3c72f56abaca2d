package pgerror_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow/internal/pgerror"
)

func TestErrorsAreClassifiedByTheirCode(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return &pgconn.PgError{Code: c} }
	for _, c := range []struct {
		name string
		err  error
		want string // empty: none
	}{
		{"serialization_failure", code("40001"), "conflict"},
		{"deadlock_detected", code("40P01"), "conflict"},
		{"lock_not_available", code("55P03"), "conflict"},
		{"no partition of the table", code("23514"), "outside partition"},
		{"a violated CHECK constraint", &pgconn.PgError{Code: "23514", ConstraintName: "amount_check"}, ""},
		{"transaction_rollback", code("40000"), ""},
		{"statement_completion_unknown", code("40003"), ""},
		{"object_in_use", code("55006"), ""},

		{"connection_failure", code("08006"), "unavailable"},
		{"too_many_connections", code("53300"), "unavailable"},
		{"disk_full", code("53100"), "unavailable"},
		{"admin_shutdown", code("57P01"), "unavailable"},
		{"crash_shutdown", code("57P02"), "unavailable"},
		{"cannot_connect_now", code("57P03"), "unavailable"},
		{"idle_session_timeout", code("57P05"), "unavailable"},
		{"io_error", code("58030"), "unavailable"},
		{"read_only_sql_transaction", code("25006"), "unavailable"},
		{"query_canceled", code("57014"), ""},
		{"idle_in_transaction_session_timeout", code("25P03"), ""},

		{"numeric_value_out_of_range", code("22003"), "unstorable"},
		{"datetime_field_overflow", code("22008"), "unstorable"},
		{"character_not_in_repertoire", code("22021"), "unstorable"},
		{"program_limit_exceeded", code("54000"), "unstorable"},

		{"unique_violation", code("23505"), ""},
		{"undefined_table", code("42P01"), ""},
		{"syntax_error", code("42601"), ""},
		{"insufficient_privilege", code("42501"), ""},
		{"in_failed_sql_transaction", code("25P02"), "failed transaction"},
		{"an error without a code", code(""), ""},
		{"wrapped", fmt.Errorf("store: %w", code("40P01")), "conflict"},
		{"joined", errors.Join(errors.New("another"), code("53300")), "unavailable"},
		{"no error of Postgres", pgx.ErrNoRows, ""},
		{"none", nil, ""},
	} {
		for name, is := range map[string]func(error) bool{
			"conflict": pgerror.IsConflict, "outside partition": pgerror.IsOutsidePartition, "unavailable": pgerror.IsUnavailable,
			"unstorable": pgerror.IsUnstorable, "failed transaction": pgerror.IsOfFailedTransaction,
		} {
			if want := name == c.want; is(c.err) != want {
				t.Errorf("%s: %s is %v", c.name, name, !want)
			}
		}
	}
}
