package rocketflow

import (
	"fmt"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// RefillTopic is the topic on which consumers ask publishers for events that they miss, see [Gap]. Create it next to the
// topics of the application; where it is missing, gaps stay as they are until the broker delivers.
const RefillTopic = "rocketflow-refill"

// refillType is the type of these questions.
const refillType = "rocketflow.refill"

// Gap is what a consumer misses of a stream: the events whose sequence lies between After and Until, both of which it has.
// As a Payload it is the question for them, sent plainly: it is asked again for as long as the gap stands.
type Gap struct {
	Source  string `json:"source"`
	Topic   string `json:"topic"`
	Subject string `json:"subject"`
	After   int64  `json:"after"` // 0: from the first event that the publisher still has
	Until   int64  `json:"until"`
}

// EventMeta makes Gap a Payload.
func (Gap) EventMeta() Meta { return Meta{Topic: RefillTopic, Type: refillType} }

// Stream returns the stream of g.
func (g Gap) Stream() Stream { return Stream{g.Source, g.Topic, g.Subject} }

// Validate returns a *FieldError for what can't be a gap of any stream. Questions come from anywhere.
func (g Gap) Validate() error {
	bad := func(field, value, want string) error {
		return &FieldError{Field: field, Reason: printable.Quote(value, printable.Name) + ": want " + want}
	}
	switch {
	case g.Source == "" || len(g.Source) > MaxSource || !printable.IsText(g.Source):
		return bad("source", g.Source, "the name of a service")
	case g.Subject == "" || len(g.Subject) > MaxSubject || !printable.IsText(g.Subject):
		return bad("subject", g.Subject, "that of a stream")
	case g.Topic == "" || len(g.Topic) > MaxTopic || !isName(g.Topic, "%|"):
		return bad("topic", g.Topic, "that of a stream")
	case g.After < 0 || g.Until <= g.After || g.Until > MaxSequence:
		return &FieldError{Field: "until", Reason: fmt.Sprintf("%d after %d: want two sequences that rise, up to %d", g.Until, g.After, int64(MaxSequence))}
	}
	return nil
}
