package wire

import (
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// ValidateMissingEvents returns a *rocketflow.FieldError for a request that can't be about any stream. Requests are input from
// outside: any user with the right to publish to the topic can send one.
func ValidateMissingEvents(m rocketflow.MissingEvents) error {
	bad := func(field, value, want string) error {
		return valid.Field(field, printable.Quote(value, printable.Name)+": want "+want)
	}
	switch {
	case m.Source == "" || len(m.Source) > rocketflow.MaxSource || !printable.IsText(m.Source):
		return bad("source", m.Source, "the name of a service")
	case m.Subject == "" || len(m.Subject) > rocketflow.MaxSubject || !printable.IsText(m.Subject):
		return bad("subject", m.Subject, "that of a stream")
	case m.Topic == "" || len(m.Topic) > rocketflow.MaxTopic || !isName(m.Topic, "%|"):
		return bad("topic", m.Topic, "that of a stream")
	case m.After < 0 || m.Until <= m.After || m.Until > rocketflow.MaxSequence:
		return valid.Fieldf("until", "%d after %d: want two ascending sequences, up to %d", m.Until, m.After, int64(rocketflow.MaxSequence))
	}
	return nil
}
