// Package stored converts the parts of an event that Postgres keeps in one jsonb column, in the outbox, among parked
// events and with timeouts, so that all tables hold them alike.
package stored

import (
	"encoding/json"
	"fmt"

	"github.com/rocketflow/rocketflow"
)

// Headers returns the text of the jsonb column, or nil if the event has nothing for it.
func Headers(e rocketflow.Event) (*string, error) {
	if len(e.Headers) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(e.Headers)
	if err != nil {
		return nil, fmt.Errorf("encode headers of event %s: %w", e.ID, err)
	}
	s := string(text)
	return &s, nil
}

// SetHeaders completes an event with what its jsonb column holds; nil or empty: nothing.
func SetHeaders(e *rocketflow.Event, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, &e.Headers); err != nil {
		return fmt.Errorf("decode headers of event %s: %w", e.ID, err)
	}
	return nil
}
