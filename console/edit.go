package console

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
)

// editing is the edit of a dead letter.
type editing struct {
	Version     string // of the dead letter that the form shows: operate.ParkedEvent.Version
	ContentType string // as the form has it
	Headers     string // as the form has them: NAME=VALUE, one on a line
	Body        string // as the form has it

	Letter       *operate.ParkedEvent // what is in the tables now, without its body; nil: it is no dead letter any more
	Now          *content             // its content
	Delivered    *content             // what was delivered, if somebody has edited it before
	Uneditable   string               // why a browser can't edit it; empty: it can
	FixedHeaders string               // why a browser can't edit its headers; empty: it can
	Commands     string               // what edits it then; empty: nothing does

	posted       bool
	headers      map[string]string // of Headers
	badHeaders   string            // what is wrong with Headers; empty: nothing
	headersOther bool              // the headers are other than in the letter
	bodyOther    bool              // the body or its content type is
}

// problem returns what is wrong with the new content, for viewers.
func (e *editing) problem() string {
	switch {
	case e.Letter == nil || e.Uneditable != "":
		return "" // the page says it
	case e.badHeaders != "":
		return e.badHeaders
	case e.bodyOther:
		return contentProblem(e.ContentType, e.Body, "rocketflow redrive edit")
	case !e.headersOther:
		return "Nothing has changed. To have it handled as it is, retry it."
	}
	return ""
}

func (e *editing) edit() operate.Edit {
	edit := operate.Edit{Body: []byte(e.Body), ContentType: e.ContentType, Version: e.Version}
	if e.headersOther {
		edit.Headers = e.headers
	}
	return edit
}

// editFrom reads the new content from the form.
func (q *request) editFrom(c *change) error {
	e := c.Edit
	e.Body, e.posted = q.bodyOfForm(), true
	if !q.r.PostForm.Has("body") || e.ContentType == "" || e.Version == "" {
		return refuse(http.StatusBadRequest, "The form is incomplete", "An edit needs the body, the content type and the version of the dead letter.")
	}
	if q.r.PostForm.Has("headers") {
		e.Headers = strings.ReplaceAll(q.r.PostForm.Get("headers"), "\r\n", "\n")
		e.headers, e.badHeaders = parseHeaders(e.Headers)
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
	shown, err := q.redacted(Content{Viewer: q.viewer, Service: c.Service.Name, Event: withoutBody(letter.Event), Body: bytes.Clone(letter.Event.Body)})
	if err != nil {
		return err
	}
	headers, allHeaders, err := q.headers(c.Service.Name, letter.Event)
	if err != nil {
		return err
	}
	now := newBody(shown)
	e.Letter, e.Now = &letter, &content{Body: &now, ContentType: letter.Event.ContentType, Headers: headers}
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
	e.decideHeaders(letter.Event.Headers, allHeaders)
	if !e.posted {
		e.Body, e.ContentType = whole, letter.Event.ContentType
	}
	if e.Uneditable != "" {
		e.Body = ""
	}
	if e.Version == "" {
		e.Version = letter.Version()
	}
	e.bodyOther = e.Body != whole || e.ContentType != letter.Event.ContentType
	e.Letter.Event.Body = nil
	return nil
}

// decideHeaders decides whether a browser can edit the headers, and whether it has. all says that the viewer sees all of them.
func (e *editing) decideHeaders(now map[string]string, all bool) {
	text := formatHeaders(now)
	same, _ := parseHeaders(text)
	switch {
	case !all:
		e.FixedHeaders = "Parts of the headers are hidden from you. They stay as they are."
	case printable.Text(text, len(text)) != text || !maps.Equal(same, now):
		e.FixedHeaders = "A browser would change some of the headers. They stay as they are: rocketflow redrive edit changes them."
	}
	switch {
	case e.FixedHeaders != "":
		e.Headers, e.headers, e.badHeaders = "", nil, ""
	case e.headers == nil && e.badHeaders == "": // the form didn't have them
		e.Headers = text
	}
	e.headersOther = e.headers != nil && !maps.Equal(e.headers, now)
}

// formatHeaders writes headers as NAME=VALUE, one on a line, by name.
func formatHeaders(headers map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		text.WriteString(name + "=" + headers[name] + "\n")
	}
	return text.String()
}

// parseHeaders reads headers as formatHeaders writes them. problem says what is wrong, for viewers.
func parseHeaders(text string) (headers map[string]string, problem string) {
	headers = map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch _, twice := headers[name]; {
		case !ok || name == "" || value == "":
			return nil, "Give each header on a line of its own as NAME=VALUE: " + printable.Quote(line, 100) + " is none."
		case twice:
			return nil, "The header " + printable.Quote(name, 100) + " is there twice."
		}
		headers[name] = value
	}
	return headers, ""
}

// delivered returns what was delivered of a letter that somebody has edited, as the viewer may see it; nil: it is not kept any more.
func (q *request) delivered(ctx context.Context, s *Service, letter operate.ParkedEvent) (*content, error) {
	list, err := s.Operator.Originals(ctx, letter.Consumer, letter.Event.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		if o.Source == letter.Event.Source {
			e := letter.Event
			e.ContentType, e.Headers, e.Body = o.ContentType, o.Headers, o.Body
			return q.contentOf(s.Name, e)
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
