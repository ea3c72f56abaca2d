package timeout

import (
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// ForeignError is the error of an event that claims to be a timeout's, but whose timeout does not live in this service's
// database. Only the service that armed a timeout may handle its event; it publishes an event of its own for other
// services. The error matches rocketflow.ErrUndecodable, so package handlers makes the event a dead letter at once.
type ForeignError struct {
	// Key and Name identify the timeout.
	Key, Name string
	// Database is the id of the database that the event names. It is empty if the event names none.
	Database string
	// OwnDatabase is the id of this service's database.
	OwnDatabase string
}

// Error returns the timeout and the two databases.
func (e *ForeignError) Error() string {
	from := "of no database"
	if e.Database != "" {
		from = "of database " + printable.Text(e.Database, 64)
	}
	return fmt.Sprintf("timeout %q of %q is %s, not of this service's database %s: only the service that armed it can handle its event",
		printable.Text(e.Name, 80), printable.Text(e.Key, 80), from, e.OwnDatabase)
}

// Is makes the error match rocketflow.ErrUndecodable.
func (e *ForeignError) Is(target error) bool { return target == rocketflow.ErrUndecodable }
