package operate

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// eventJSON is an event in the JSON of a list: all fields except its content.
type eventJSON struct {
	EventID    uuid.UUID `json:"event_id"`
	Type       string    `json:"type"`
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	Subject    string    `json:"subject,omitempty"`
	Sequence   int64     `json:"sequence,omitempty"`
	Previous   int64     `json:"previous,omitempty"`
	RecordedAt time.Time `json:"recorded_at,omitzero"`
}

func newEventJSON(e rocketflow.Event) eventJSON {
	return eventJSON{e.ID, e.Type, e.Source, e.Topic, e.Subject, e.Sequence, e.Previous, e.Time}
}

// MarshalJSON returns the event, without its content, and why it is rejected.
func (r RejectedEvent) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		eventJSON
		Size       int       `json:"size"`
		Reason     string    `json:"reason"`
		Attempts   int       `json:"attempts"`
		RejectedAt time.Time `json:"rejected_at"`
		NextAt     time.Time `json:"next_at,omitzero"`
	}{newEventJSON(r.Event), r.Size, r.Reason, r.Attempts, r.RejectedAt, r.NextAt})
}

// MarshalJSON returns the event, without its content, and how it waits.
func (w WaitingEvent) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID     int64         `json:"id"`
		Saga   string        `json:"saga"`
		Key    string        `json:"key"`
		Status WaitingStatus `json:"status"`
		eventJSON
		State     string    `json:"state"`
		ArrivedAt time.Time `json:"arrived_at"`
		ExpiresAt time.Time `json:"expires_at"`
		Attempts  int       `json:"attempts"`
		NextAt    time.Time `json:"next_at,omitzero"`
		LastError string    `json:"last_error,omitempty"`
	}{w.ID, w.Saga, w.Key, w.Status, newEventJSON(w.Event), w.State, w.ArrivedAt, w.ExpiresAt, w.Attempts, w.NextAt, w.LastError})
}

// MarshalJSON returns the event, without its content, and how it is parked.
func (p ParkedEvent) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Consumer string `json:"consumer"`
		eventJSON
		Reason    HandlingState `json:"reason"`
		Attempts  int           `json:"attempts"`
		NextAt    time.Time     `json:"next_at,omitzero"`
		LastError string        `json:"last_error,omitempty"`
		ParkedAt  time.Time     `json:"parked_at"`
		Edited    bool          `json:"edited,omitempty"`
	}{p.Consumer, newEventJSON(p.Event), p.Reason, p.Attempts, p.NextAt, p.LastError, p.ParkedAt, p.Edited})
}
