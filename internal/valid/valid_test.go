package valid_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/valid"
)

func TestField(t *testing.T) {
	t.Parallel()
	var f *rocketflow.FieldError
	err := valid.Wrap("outbox.Config.Pool", "can't be used", io.ErrUnexpectedEOF)
	if !errors.As(err, &f) || f.Field != "outbox.Config.Pool" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%#v", err)
	}
	if want := "outbox.Config.Pool: can't be used: unexpected EOF"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if err := valid.Fieldf("a.B", "%d: want more than %d", 1, 2); err.Error() != "a.B: 1: want more than 2" {
		t.Errorf("text %q", err)
	}
}

// Whatever comes from outside, the text is one short line.
func TestHostileText(t *testing.T) {
	t.Parallel()
	hostile := strings.Repeat("a\n\x1b[31m\u202e", 100_000)
	text := valid.Wrap(hostile, hostile, errors.New(hostile)).Error()
	if len(text) > 8192 || strings.ContainsAny(text, "\n\x1b\u202e") {
		t.Errorf("%d bytes: %.300q", len(text), text)
	}
}
