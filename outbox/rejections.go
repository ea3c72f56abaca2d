package outbox

import (
	"errors"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// rejections spares the broker, and the log, events that it rejects: they rest for a while that doubles with each
// rejection. A missing topic or a missing grant concerns all events of the topic.
type rejections map[string]rejection

type rejection struct {
	until time.Time
	rest  time.Duration
}

const (
	firstRest     = 2 * time.Second
	longestRest   = time.Minute
	maxRejections = 10_000 // beyond that all begin anew
)

func (r *rejections) add(e rocketflow.Event, err error, now time.Time) {
	key := e.ID.String()
	if errors.Is(err, broker.ErrTopicNotFound) || errors.Is(err, broker.ErrUnauthorized) {
		key = e.Topic
	}
	if *r == nil || len(*r) >= maxRejections {
		*r = rejections{}
	}
	last := (*r)[key]
	if now.Before(last.until) {
		return // another event of the topic, in the same pass
	}
	rest := min(max(2*last.rest, firstRest), longestRest)
	(*r)[key] = rejection{now.Add(rest), rest}
}

// rest tells whether an event rests.
func (r *rejections) rest(e rocketflow.Event, now time.Time) bool {
	return now.Before((*r)[e.Topic].until) || now.Before((*r)[e.ID.String()].until)
}
