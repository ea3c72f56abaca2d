package outbox

import (
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// scanEvent returns a function that reads a row with the columns of the queries LoadOwed, MissingEvents and Resend.
func scanEvent(database string) pgx.RowToFunc[rocketflow.Event] {
	return func(row pgx.CollectableRow) (rocketflow.Event, error) {
		e := rocketflow.Event{Database: database}
		var headers []byte
		err := row.Scan(&e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.ContentType, &headers, &e.Body)
		if err == nil {
			err = stored.SetHeaders(&e, headers)
		}
		return e, err
	}
}
