// Package pgerror classifies errors of Postgres by their SQLSTATE codes. How often a caller tries again after such an error is
// the caller's own rule; lazytx.Retry is that of statements outside the way of events.
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
	failed         = "25P02" // in_failed_sql_transaction
)

// conflicts are serialization_failure, deadlock_detected and lock_not_available.
var conflicts = []string{"40001", "40P01", "55P03"}

// unavailableClasses are connection exceptions, lack of resources, operator intervention and system errors.
var unavailableClasses = []string{"08", "53", "57", "58"}

// IsConflict reports whether err is a conflict with another transaction, so that the same transaction may succeed when it
// runs again: a serialization failure, a deadlock, or a lock that was not available in time.
func IsConflict(err error) bool {
	e, ok := of(err)
	return ok && slices.Contains(conflicts, e.Code)
}

// IsOutsidePartition reports whether err means that a table has no partition for a row, or that the partition does not accept
// it. The error is transient only if the partition was made or attached at that moment.
func IsOutsidePartition(err error) bool {
	e, ok := of(err)
	return ok && e.Code == checkViolation && e.ConstraintName == "" // a CHECK constraint has a name
}

// IsUnavailable reports whether err means that Postgres can't be used at present: a connection exception, a lack of resources,
// an operator's intervention, a system error, or a server that is read-only. A statement that is cancelled or takes too long is
// no such error: it is the statement's own fault.
func IsUnavailable(err error) bool {
	e, ok := of(err)
	if !ok || len(e.Code) < 2 {
		return false
	}
	return e.Code == readOnly || e.Code != queryCanceled && slices.Contains(unavailableClasses, e.Code[:2])
}

// IsUnstorable reports whether err means that Postgres can't store a value whenever it is asked to: a data exception, such as a time out of
// range or text that the database's encoding lacks, or a limit of Postgres itself, such as the length of an index's row.
func IsUnstorable(err error) bool {
	e, ok := of(err)
	return ok && len(e.Code) >= 2 && (e.Code[:2] == "22" || e.Code[:2] == "54")
}

// IsOfFailedTransaction reports whether err only means that an earlier statement of the transaction failed.
func IsOfFailedTransaction(err error) bool {
	e, ok := of(err)
	return ok && e.Code == failed
}

// of returns the error of Postgres that err wraps, and false if there is none.
func of(err error) (e *pgconn.PgError, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
