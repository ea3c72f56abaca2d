package console

import (
	"bytes"
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
)

// editing is the edit of a dead letter.
type editing struct {
	Version     string // of the dead letter that the form shows: operate.ParkedEvent.Version
	ContentType string // as the form has it
	Body        string // as the form has it

	Letter     *operate.ParkedEvent // what is in the tables now, without its body; nil: it is no dead letter any more
	Now        *body                // its body
	Delivered  *body                // the body that was delivered, if somebody has edited it before
	Uneditable string               // why a browser can't edit it; empty: it can
	Commands   string               // what edits it then; empty: nothing does

	posted  bool
	changed bool // something is other than in the letter
}

// problem returns what is wrong with the new content, for viewers.
func (e *editing) problem() string {
	kind, _, err := mime.ParseMediaType(e.ContentType)
	switch {
	case e.Letter == nil || e.Uneditable != "":
		return "" // the page says it
	case !utf8.ValidString(e.Body):
		return "The body is not UTF-8 text."
	case len(e.Body) > maxBody:
		return "The body has " + count(len(e.Body)) + " bytes; a browser may send " + count(maxBody) + ". Use rocketflow redrive edit."
	case !e.changed:
		return "Nothing has changed. To have it handled as it is, retry it."
	case err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) && !json.Valid([]byte(e.Body)):
		return "The body is no JSON, and its content type says that it is."
	}
	return ""
}

func (e *editing) edit() operate.Edit {
	return operate.Edit{Body: []byte(e.Body), ContentType: e.ContentType, Version: e.Version}
}

// editFrom reads the new content from the form, as it is: a browser has made each line's end CR LF, which no editable body has.
func (q *request) editFrom(c *change) error {
	e := c.Edit
	e.Body, e.posted = strings.ReplaceAll(q.r.PostForm.Get("body"), "\r\n", "\n"), true
	if !q.r.PostForm.Has("body") || e.ContentType == "" || e.Version == "" {
		return refuse(http.StatusBadRequest, "The form is incomplete", "An edit needs the body, the content type and the version of the dead letter.")
	}
	if err := q.readEdited(q.r.Context(), c); err != nil {
		return err
	}
	switch {
	case e.Letter == nil:
		return refuse(http.StatusConflict, "It can't be done", operate.ErrUnknownDeadLetter.Error()+": somebody has retried, edited or discarded it.")
	case e.Uneditable != "":
		return refuse(http.StatusConflict, "A browser can't edit this body", e.Uneditable+" "+e.Commands)
	}
	return nil
}

// readEdited reads the dead letter that is edited, and decides whether this viewer can edit it here.
func (q *request) readEdited(ctx context.Context, c *change) error {
	e, f := c.Edit, c.Filter
	f.Limit = 2
	list, err := c.Service.Operator.DeadLetters(ctx, f)
	if err != nil {
		return err
	}
	e.Letter = nil
	if c.Rows = int64(len(list)); c.Rows == 0 {
		return nil
	}
	letter := list[0]
	content := Content{Viewer: q.viewer, Service: c.Service.Name, Event: letter.Event, Body: bytes.Clone(letter.Event.Body)}
	content.Event.Body = nil
	shown, err := q.redacted(content)
	if err != nil {
		return err
	}
	now := newBody(shown)
	e.Letter, e.Now = &letter, &now
	if letter.Edited {
		if e.Delivered, err = q.delivered(ctx, c.Service, letter); err != nil {
			return err
		}
	}
	whole := string(letter.Event.Body)
	switch {
	case len(list) > 1:
		e.Uneditable = "Events of several sources have this id: begin at the page of one of them."
	case wire.Undecoded(letter.Event):
		e.Uneditable = "Its message could not be decoded, so that its content can't be edited at all."
	case !bytes.Equal(shown, letter.Event.Body):
		e.Uneditable, e.Commands = "Parts of the body are hidden from you, and would be lost.", commands(c.Service, letter)
	case len(whole) > maxBody:
		e.Uneditable, e.Commands = "The body has "+count(len(whole))+" bytes, and a browser edits "+count(maxBody)+".", commands(c.Service, letter)
	case printable.Text(whole, maxBody) != whole:
		e.Uneditable, e.Commands = "The body is no plain UTF-8 text: a browser would change some of its bytes.", commands(c.Service, letter)
	}
	if !e.posted {
		e.Body, e.ContentType = whole, letter.Event.ContentType
	}
	if e.Uneditable != "" {
		e.Body = ""
	}
	if e.Version == "" {
		e.Version = letter.Version()
	}
	e.changed = e.Body != whole || e.ContentType != letter.Event.ContentType
	e.Letter.Event.Body = nil
	return nil
}

// delivered returns what was delivered of a letter that somebody has edited, as the viewer may see it; nil: it is not kept any more.
func (q *request) delivered(ctx context.Context, s *Service, letter operate.ParkedEvent) (*body, error) {
	list, err := s.Operator.Originals(ctx, letter.Consumer, letter.Event.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		if o.Source == letter.Event.Source {
			e := letter.Event
			e.ContentType, e.Headers = o.ContentType, o.Headers
			return q.body(s.Name, e, o.Body)
		}
	}
	return nil, nil
}

// commands are those of the CLI that edit a letter.
func commands(s *Service, letter operate.ParkedEvent) string {
	which := " --consumer " + printable.Word(printable.Line(letter.Consumer, printable.Name)) + " " + letter.Event.ID.String()
	if schema := s.Operator.Schema(); schema != rocketflow.DefaultSchema {
		which = " --schema " + printable.Word(schema) + which
	}
	return "rocketflow redrive show --body" + which + " >body\nrocketflow redrive edit --body-file body" + which
}
