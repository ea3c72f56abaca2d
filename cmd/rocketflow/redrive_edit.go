package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

// contentJSON is the content of an event.
type contentJSON struct {
	EventID     uuid.UUID         `json:"event_id"`
	Consumer    string            `json:"consumer"`
	Source      string            `json:"source"`
	Type        string            `json:"type,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	LastError   string            `json:"last_error,omitempty"`
	Edited      bool              `json:"edited,omitempty"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers,omitempty"`
	Text        *string           `json:"text,omitempty"` // the body, if it is UTF-8
	Body        []byte            `json:"body,omitempty"` // if it isn't
	Original    *contentJSON      `json:"original,omitempty"`
}

func (c *contentJSON) setBody(body []byte) {
	if utf8.Valid(body) {
		text := string(body)
		c.Text = &text
		return
	}
	c.Body = body
}

func newRedriveShowCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	var body, original bool
	cmd := &cobra.Command{
		Use:   "show EVENT",
		Short: "Print the content of a dead letter",
		Long: `Prints a dead letter with its headers and body as JSON and, if it was edited, what was delivered. With --body, prints
nothing but the body as it is, to edit it in a file. Of an event that is no dead letter any more, --original prints what
was delivered, as long as the inbox's retention.`,
		Example: "  rocketflow redrive show --consumer billing 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --body >body.json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			if err := required(cmd, "consumer"); err != nil {
				return err
			}
			id, err := parseEventID(arguments[0])
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := showContent(ctx, o, consumer, id, original)
				switch {
				case err != nil:
					return err
				case len(list) == 0:
					return fmt.Errorf("consumer %s has no dead letter %s: see rocketflow redrive list", consumer, id)
				case !body:
					return printJSON(cmd.OutOrStdout(), list)
				case len(list) > 1:
					return fmt.Errorf("events of several sources have the id %s: leave out --body", id)
				}
				data := list[0].Body
				if list[0].Text != nil {
					data = []byte(*list[0].Text)
				}
				_, err = cmd.OutOrStdout().Write(data)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().BoolVar(&body, "body", false, "print nothing but the body")
	cmd.Flags().BoolVar(&original, "original", false, "print what was delivered, before it was edited")
	return cmd
}

// showContent returns the content of dead letters with an id, or of what was delivered.
func showContent(ctx context.Context, o *operate.Operator, consumer string, id uuid.UUID, original bool) (list []*contentJSON, err error) {
	originals, err := o.Originals(ctx, consumer, id)
	if err != nil {
		return nil, err
	}
	bySource := map[string]*contentJSON{}
	for _, v := range originals {
		c := &contentJSON{EventID: id, Consumer: consumer, Source: v.Source, ContentType: v.ContentType, Headers: v.Headers}
		c.setBody(v.Body)
		bySource[v.Source] = c
		if original {
			list = append(list, c)
		}
	}
	if original {
		return list, nil
	}
	letters, err := o.DeadLetters(ctx, operate.ParkedFilter{Consumer: consumer, EventID: id})
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		e := l.Event
		c := &contentJSON{
			EventID: id, Consumer: consumer, Source: e.Source, Type: e.Type, Subject: e.Subject, LastError: l.LastError, Edited: l.Edited,
			ContentType: e.ContentType, Headers: e.Headers,
		}
		c.setBody(e.Body)
		if l.Edited {
			c.Original = bySource[e.Source]
		}
		list = append(list, c)
	}
	return list, nil
}

func newRedriveEditCommand(flags *reportFlags) *cobra.Command {
	var ref operate.DeadLetterRef
	var file string
	var edit operate.Edit
	var headers []string
	var noHeaders bool
	cmd := &cobra.Command{
		Use:   "edit EVENT",
		Short: "Change the content of a dead letter, and retry it",
		Long: `Replaces the body, the content type or the headers of a dead letter for one consumer, and makes it due. What was
delivered is kept and shown by rocketflow redrive show. The event keeps its id and its place in its stream.`,
		Example: `  rocketflow redrive show --consumer billing 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --body >body.json
  rocketflow redrive edit --consumer billing 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --body-file body.json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arguments []string) (err error) {
			if err := required(cmd, "consumer"); err != nil {
				return err
			}
			if ref.EventID, err = parseEventID(arguments[0]); err != nil {
				return err
			}
			switch {
			case noHeaders && len(headers) > 0:
				return usagef("--header and --no-headers exclude each other: leave one out")
			case noHeaders:
				edit.Headers = map[string]string{}
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, "=")
				if !ok || name == "" {
					return usagef("--header %q: want NAME=VALUE", h)
				}
				if edit.Headers == nil {
					edit.Headers = map[string]string{}
				}
				edit.Headers[name] = value
			}
			if file != "" {
				if edit.Body, err = readBody(cmd.InOrStdin(), file); err != nil {
					return err
				}
			}
			if edit.Body == nil && edit.ContentType == "" && edit.Headers == nil {
				return usagef("nothing is changed: set --body-file, --content-type, --header or --no-headers")
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				err := o.EditDeadLetter(ctx, ref, edit)
				var field *rocketflow.FieldError
				switch {
				case errors.Is(err, operate.ErrUnknownDeadLetter):
					return fmt.Errorf("consumer %s has no dead letter %s: see rocketflow redrive list", ref.Consumer, ref.EventID)
				case errors.As(err, &field) && strings.HasSuffix(field.Field, ".Source"):
					return usagef("events of several sources have the id %s: set --source", ref.EventID)
				case err != nil:
					return err
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]bool{"edited": true}, "edited %s, which is due", ref.EventID)
			})
		},
	}
	cmd.Flags().StringVar(&ref.Consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&ref.Source, "source", "", "the source of the event, if events of several sources have its id")
	cmd.Flags().StringVar(&file, "body-file", "", "the file with the new body; - is the standard input")
	cmd.Flags().StringVar(&edit.ContentType, "content-type", "", "the new content type")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "a header, as NAME=VALUE; replaces all headers, and may be repeated")
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "remove all headers")
	return cmd
}

// readBody reads a file, or the standard input for -.
func readBody(stdin io.Reader, file string) ([]byte, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}
