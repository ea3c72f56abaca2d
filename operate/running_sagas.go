package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxRunning is how many running sagas of one name, version and state are looked at.
const maxRunning = 10_000

// RunningSagas counts the sagas of one name that are in one state and have not finished. Of each version at most 10,000 are looked at,
// in no order.
type RunningSagas struct {
	Saga  string `json:"saga"`
	State string `json:"state"`
	Sagas int64  `json:"sagas"`
	// Oldest is how long the one has been in the state that has been there for the longest time, of those that were looked at.
	Oldest time.Duration `json:"oldest_ns"`
	// OldestKey is the key of that one.
	OldestKey string `json:"oldest_key"`
}

// RunningSagas counts the sagas that have not finished, by name and state.
func (o *Operator) RunningSagas(ctx context.Context) (list []RunningSagas, err error) {
	err = o.read(ctx, func(s snapshot) error {
		list, err = collect(ctx, s, "RunningSagas", func(row pgx.CollectableRow, v *RunningSagas) error {
			var seconds float64
			err := row.Scan(&v.Saga, &v.State, &v.Sagas, &seconds, &v.OldestKey)
			v.Oldest = time.Duration(seconds * float64(time.Second))
			return err
		}, maxRunning, maxRows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count running sagas: %w", err)
	}
	return list, nil
}
