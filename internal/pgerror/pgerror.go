// Package pgerror classifies errors of Postgres that pass by themselves, by their SQLSTATE codes. What a caller does about
// them, and how often it tries again, is its own rule.
package pgerror

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	checkViolation = "23514"
	queryCanceled  = "57014" // statement_timeout or a cancel
	readOnly       = "25006" // read_only_sql_transaction
)

// conflicts are serialization_failure, deadlock_detected and lock_not_available.
var conflicts = []string{"40001", "40P01", "55P03"}

// unavailableClasses are connection exceptions, lack of resources, operator intervention and system errors.
var unavailableClasses = []string{"08", "53", "57", "58"}

// IsConflict reports whether err says that transactions were in each other's way, so that the same transaction may succeed
// when it runs again: a serialization failure, a deadlock, or a lock that was not available in time.
func IsConflict(err error) bool {
	e, ok := of(err)
	return ok && slices.Contains(conflicts, e.Code)
}

// IsOutsidePartition reports whether err says that a table has no partition for a row, or that the partition does not accept
// it. This passes if the partition was made or attached at that moment, and else it does not.
func IsOutsidePartition(err error) bool {
	e, ok := of(err)
	return ok && e.Code == checkViolation && e.ConstraintName == "" // a CHECK constraint has a name
}

// IsUnavailable reports whether err says that Postgres can't be used at present: a connection exception, a lack of resources,
// an operator's intervention, a system error, or a server that only reads. A statement that is cancelled or takes too long is
// no such error: it is the statement's own fault.
func IsUnavailable(err error) bool {
	e, ok := of(err)
	if !ok || len(e.Code) < 2 {
		return false
	}
	return e.Code == readOnly || e.Code != queryCanceled && slices.Contains(unavailableClasses, e.Code[:2])
}

// of returns the error of Postgres that err wraps, and false if there is none.
func of(err error) (e *pgconn.PgError, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
