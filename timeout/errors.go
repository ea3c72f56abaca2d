package timeout

import (
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// ForeignError: an event says that it is a timeout's firing, but the timeout is not of this service's database. Only the
// service that armed a timeout may handle it; it publishes what others need to know. It matches rocketflow.ErrUndecodable,
// so that handlers make the event a dead letter at once.
type ForeignError struct {
	Key, Name string
	Database  string // that the event names; empty: none
	Own       string
}

func (e *ForeignError) Error() string {
	from := "of no database"
	if e.Database != "" {
		from = "of database " + printable.Text(e.Database, 64)
	}
	return fmt.Sprintf("timeout %q of %q is %s, not of this service's (%s): the service that armed it has to handle it",
		printable.Text(e.Name, 80), printable.Text(e.Key, 80), from, e.Own)
}

// Is makes the error match rocketflow.ErrUndecodable.
func (e *ForeignError) Is(target error) bool { return target == rocketflow.ErrUndecodable }
