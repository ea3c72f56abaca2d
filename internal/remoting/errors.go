package remoting

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// ErrClosed is why a connection ended that its owner closed.
var ErrClosed = errors.New("connection closed")

// ErrMalformed is matched by every error about bytes that can't be what they should be.
var ErrMalformed = errors.New("malformed")

// ResponseError is an answer other than success, in the peer's own words. It matches the broker.Err* of its code.
type ResponseError struct {
	Code   Code
	Remark string
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("%v (code %d: %s)", e.kind(), e.Code, firstLine(e.Remark))
}

// Unwrap returns the broker.Err* that the code stands for.
func (e *ResponseError) Unwrap() error { return e.kind() }

var errRefused = errors.New("broker refused the request")

func (e *ResponseError) kind() error {
	switch e.Code {
	case TopicNotExist:
		return broker.ErrTopicNotFound
	case NoPermission:
		return broker.ErrUnauthorized
	case MessageIllegal:
		switch {
		case strings.Contains(e.Remark, "bigger than the max delay"):
			return broker.ErrBeyondHorizon
		case strings.Contains(e.Remark, "length limit") || strings.Contains(e.Remark, "length too long"):
			return broker.ErrTooLarge
		}
		return broker.ErrIllegal
	case SystemError, SystemBusy, ServiceNotAvailable, FlushDiskTimeout, FlushSlaveTimeout, SlaveNotAvailable:
		return broker.ErrUnavailable
	}
	return errRefused
}

// firstLine keeps the remark that says what is wrong and drops the Java stack trace that may follow.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(printable.Line(s, 500))
}
