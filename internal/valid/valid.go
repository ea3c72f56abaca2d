// Package valid makes the errors of invalid fields, so that text from outside is always cut and escaped in them, and has the
// rules for names of groups.
package valid

import (
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Field returns a *rocketflow.FieldError. field is the full path, such as outbox.Config.Pool; reason says what is wrong and
// what is wanted instead.
func Field(field, reason string) error {
	return &rocketflow.FieldError{Field: printable.Line(field, printable.Name), Reason: printable.Line(reason, printable.Reason)}
}

// Fieldf is Field with a format for the reason.
func Fieldf(field, format string, args ...any) error {
	return Field(field, fmt.Sprintf(format, args...))
}

// Wrap is Field with a cause, which the error matches and whose text follows the reason.
func Wrap(field, reason string, cause error) error {
	return &rocketflow.FieldError{
		Field:  printable.Line(field, printable.Name),
		Reason: printable.Line(reason, printable.Reason) + ": " + printable.Line(cause.Error(), printable.Reason),
		Err:    cause,
	}
}
