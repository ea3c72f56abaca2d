package remoting

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// ErrClosed is the error of a connection after Conn.Close.
var ErrClosed = errors.New("connection closed")

// ErrMalformed is matched by every error about bytes that can't be decoded.
var ErrMalformed = errors.New("malformed")

// ResponseError is the error of a response other than Success. It matches the error of package broker that its code stands for, such as
// broker.ErrTopicNotFound.
type ResponseError struct {
	Code    Code
	Remark  string // the peer's own text
	Request Code   // of the request; 0: unknown
}

// Error returns the meaning and number of the code, and the first line of the remark. For a request that the broker's ACL refuses it
// also says which right is missing, or what is wrong with the credentials.
func (e *ResponseError) Error() string {
	text := fmt.Sprintf("%v (code %d: %s)", e.meaning(), e.Code, firstLine(e.Remark))
	if remedy := e.remedy(); remedy != "" {
		text += ": " + remedy
	}
	return text
}

// Unwrap returns the error of package broker that the code stands for.
func (e *ResponseError) Unwrap() error { return e.meaning() }

var errRefused = errors.New("broker refused the request")

func (e *ResponseError) meaning() error {
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
	case SystemError:
		switch {
		case strings.Contains(e.Remark, "timer message is not enabled"):
			return broker.ErrNoTimers
		case strings.Contains(e.Remark, exceptionOfACL1):
			return broker.ErrUnauthorized
		}
		return broker.ErrUnavailable
	case SystemBusy, ServiceNotAvailable, FlushDiskTimeout, FlushSlaveTimeout, SlaveNotAvailable:
		return broker.ErrUnavailable
	}
	return errRefused
}

// firstLine returns the line that says what is wrong, without the Java stack trace that may follow.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(printable.Line(s, 500))
}
