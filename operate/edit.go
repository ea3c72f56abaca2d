package operate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// ErrUnknownDeadLetter means that the consumer has no such dead letter.
var ErrUnknownDeadLetter = errors.New("the consumer has no such dead letter")

// ErrDeadLetterChanged means that a dead letter is not the one that Edit.Version names any more.
var ErrDeadLetterChanged = errors.New("the dead letter has changed since it was read")

// maxEditedBody bounds an edited body, in bytes.
const maxEditedBody = 4 << 20

// DeadLetterRef identifies a dead letter.
type DeadLetterRef struct {
	Consumer string    `json:"consumer"`         // required
	EventID  uuid.UUID `json:"event_id"`         // required
	Source   string    `json:"source,omitempty"` // required only if events of several sources have this id
}

func (r DeadLetterRef) check() error {
	switch {
	case r.Consumer == "":
		return valid.Field("operate.DeadLetterRef.Consumer", "missing")
	case r.EventID == uuid.Nil:
		return valid.Field("operate.DeadLetterRef.EventID", "missing")
	}
	return nil
}

// Edit is a change of an event's content. What is nil or empty stays as it is; at least one field is required.
type Edit struct {
	Body        []byte            // the new encoded payload
	ContentType string            // the media type of the body
	Headers     map[string]string // all of them; empty and not nil: none
	// Version is the ParkedEvent.Version of the dead letter that was edited: another version is left as it is. Empty: any.
	Version string
}

// Version identifies the content of a parked event and its last failure: it is another one after somebody has edited it, or a handler has
// failed with another error.
func (e ParkedEvent) Version() string { return versionOf(e.Event, e.LastError) }

func versionOf(e rocketflow.Event, lastError string) string {
	names := slices.Sorted(maps.Keys(e.Headers))
	hash := sha256.New()
	part := func(text string) { fmt.Fprintf(hash, "%d %s", len(text), text) }
	part(e.ContentType)
	part(lastError)
	part(string(e.Body))
	for _, name := range names {
		part(name)
		part(e.Headers[name])
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (e Edit) check() error {
	switch {
	case e.Body == nil && e.ContentType == "" && e.Headers == nil:
		return valid.Field("operate.Edit", "want a body, a content type or headers")
	case len(e.Body) > maxEditedBody:
		return valid.Fieldf("operate.Edit.Body", "%d bytes: want at most %d", len(e.Body), maxEditedBody)
	}
	return nil
}

// apply changes the content of an event.
func (e Edit) apply(to *rocketflow.Event) error {
	if e.Body != nil {
		to.Body = e.Body
	}
	if e.ContentType != "" {
		to.ContentType = e.ContentType
	}
	if e.Headers != nil {
		to.Headers = maps.Clone(e.Headers)
		if wire.Undecoded(*to) {
			return valid.Field("operate.Edit.Headers", "a name is reserved")
		}
	}
	if wire.Undecoded(*to) {
		return valid.Field("operate.DeadLetterRef", "its message could not be decoded, so that its content can't be edited")
	}
	return wire.Validate(*to)
}

// contentState is the content of an event in the audit: what proves it, without the content.
type contentState struct {
	Attempts    int      `json:"attempts"`
	LastError   string   `json:"last_error,omitempty"`
	ContentType string   `json:"content_type,omitempty"`
	BodyBytes   int      `json:"body_bytes"`
	BodySHA256  string   `json:"body_sha256"`
	Headers     []string `json:"headers,omitempty"` // their names
}

func contentOf(e rocketflow.Event) contentState {
	sum := sha256.Sum256(e.Body)
	names := slices.Sorted(maps.Keys(e.Headers))
	return contentState{ContentType: e.ContentType, BodyBytes: len(e.Body), BodySHA256: hex.EncodeToString(sum[:]), Headers: names[:min(len(names), maxStates)]}
}

// EditDeadLetter changes the content of a dead letter, and makes it due with its attempts counted from 0 again, in one transaction.
// Handlers of this consumer get the new content; the identity of the event and its place in its stream stay. Originals returns the
// content that was delivered, which is kept as long as the inbox's rows. Another copy of the event that is delivered later is a
// duplicate. The error matches ErrUnknownDeadLetter if there is no such dead letter, and ErrDeadLetterChanged if it is another version
// than the edited one.
func (o *Operator) EditDeadLetter(ctx context.Context, r DeadLetterRef, edit Edit) error {
	if err := errors.Join(r.check(), edit.check()); err != nil {
		return err
	}
	op, err := o.operation(ctx, ActionEditDeadLetter, r)
	if err != nil {
		return err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		found, err := o.inbox.Keys(ctx, tx, true, inbox.Filter{Consumer: r.Consumer, EventID: r.EventID, Source: r.Source, Limit: 2})
		switch {
		case err != nil:
			return c, err
		case len(found) == 0:
			return c, ErrUnknownDeadLetter
		case len(found) > 1:
			return c, valid.Field("operate.DeadLetterRef.Source", "missing: events of several sources have this id")
		}
		var after rocketflow.Event
		before, err := o.inbox.Consumer(r.Consumer).EditDead(ctx, tx, inbox.Key{Source: found[0].Source, ID: r.EventID}, func(e *rocketflow.Event) error {
			err := edit.apply(e)
			after = *e
			return err
		})
		if err == nil && before == nil {
			err = ErrUnknownDeadLetter
		}
		if err == nil && edit.Version != "" && edit.Version != versionOf(before.Event, before.LastError) {
			err = ErrDeadLetterChanged
		}
		if err != nil {
			return c, err
		}
		c.add(r.EventID.String())
		state := contentOf(before.Event)
		state.Attempts, state.LastError = before.Attempts, printable.Cut(before.LastError, maxAuditError)
		c.before, c.after = state, contentOf(after)
		return c, nil
	})
	if err != nil {
		return printable.Errorf("edit dead letter %s of consumer %s: %w", r.EventID, r.Consumer, err)
	}
	return nil
}

// Original is the content of an event as it was delivered to a consumer.
type Original struct {
	Consumer    string            `json:"consumer"`
	Source      string            `json:"source"`
	EventID     uuid.UUID         `json:"event_id"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers,omitempty"`
	Body        []byte            `json:"body"`
	EditedAt    time.Time         `json:"edited_at"`
}

// Originals returns what was delivered to a consumer of an event that an operator has edited; none: it was not edited, or that was
// longer ago than the inbox's retention. There is one for each source that has used the id.
func (o *Operator) Originals(ctx context.Context, consumer string, event uuid.UUID) ([]Original, error) {
	found, err := o.inbox.Consumer(consumer).Originals(ctx, o.db(), event)
	if err != nil {
		return nil, fmt.Errorf("read the original content of event %s: %w", event, err)
	}
	list := make([]Original, len(found))
	for i, f := range found {
		list[i] = Original{f.Consumer, f.Source, event, f.Event.ContentType, f.Event.Headers, f.Event.Body, f.EditedAt}
	}
	return list, nil
}
