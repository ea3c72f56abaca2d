package handlers

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Decode reads the body of an event into a T, as a handler that [On] registers gets it. It is for handlers that
// [Router.Handle] registers. The body must be JSON in UTF-8, and must not be null unless a T can be nil. An error matches
// rocketflow.ErrUndecodable; a handler that returns it makes the event a dead letter.
func Decode[T any](e rocketflow.Event) (T, error) { return wire.DecodeBody[T](e) }

// decode decodes a message. With an error it returns an event without order that a dead letter can hold.
func decode(d broker.Delivery) (rocketflow.Event, error) {
	e, err := wire.EventOf(d)
	if err == nil {
		err = storable(e)
	}
	if err == nil {
		return e, nil
	}
	if e.ID == uuid.Nil {
		name := d.ID
		if name == "" {
			name = fmt.Sprintf("%s/%d/%d", d.Broker, d.Queue, d.Offset)
		}
		e.ID = digestID(d.Topic, name)
	}
	e.Topic, e.Body, e.Sequence, e.Previous = d.Topic, d.Body, 0, 0
	return e, err
}

// cutDown makes an event that Postgres can't store a dead letter that it can.
func (it *item) cutDown(why error) {
	it.event = wire.CutDown(it.event)
	it.unreadable = fmt.Errorf("%w: Postgres can't store it as it is, so all but its body is in the header rf_undecoded: %s", rocketflow.ErrUndecodable,
		printable.ASCII(why.Error()))
}

// digestID returns a UUID of version 8 that is always the same for the same parts.
func digestID(parts ...string) uuid.UUID {
	return uuid.NewHash(sha256.New(), uuid.NameSpaceOID, []byte(strings.Join(parts, "\x00")), 8)
}

// storable returns an error for an event whose stream can't be stored in a position's row.
func storable(e rocketflow.Event) error {
	if !e.Ordered() {
		return nil
	}
	for _, s := range []string{e.Source, e.Topic, e.Subject} {
		if s != inbox.Clean(s) || len(s) > rocketflow.MaxSubject {
			return fmt.Errorf("%w: stream %.64q/%.64q/%.64q: %w", rocketflow.ErrUndecodable, e.Source, e.Topic, e.Subject, errName)
		}
	}
	return nil
}

var errName = errors.New("not text, or too long")
