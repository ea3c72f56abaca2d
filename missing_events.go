package rocketflow

// MissingEventsTopic is the topic on which consumers request missing events from their publishers, see [MissingEvents].
// Create it beside the topics of the application. Without it a gap in a stream remains until the broker delivers the
// missing events or an operator sends them again.
const MissingEventsTopic = "rocketflow-missing-events"

// MissingEvents is a consumer's request for the events of a stream whose sequence lies between After and Until, both
// exclusive. It is the payload of an event without order, and is sent again for as long as the gap exists.
type MissingEvents struct {
	// Source, Topic and Subject identify the stream, as in Event.
	Source  string `json:"source"`
	Topic   string `json:"topic"`
	Subject string `json:"subject"`

	After int64 `json:"after"` // 0: from the first event that the publisher still has
	Until int64 `json:"until"` // the sequence of an event that the consumer has
}

// EventMeta makes MissingEvents a Payload.
func (MissingEvents) EventMeta() Meta {
	return Meta{Topic: MissingEventsTopic, Type: "rocketflow.missing_events"}
}

// Stream returns the stream whose events are requested.
func (m MissingEvents) Stream() Stream { return Stream{m.Source, m.Topic, m.Subject} }
