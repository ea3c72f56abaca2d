package handlers

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
)

// Requester requests events that a consumer misses from their publisher, which sends them again. An *outbox.Outbox is one.
type Requester interface {
	// RequestMissing sends a request. nil means that it was sent, not that the events will be.
	RequestMissing(ctx context.Context, g rocketflow.MissingEvents) error
}

// NoRequester is a Config.Requester that requests nothing: an event that the broker has lost holds its stream until an operator
// sends it again, or accepts the gap. It is for consumers of publishers that don't use rocketflow, and for tests.
var NoRequester Requester = noRequester{}

type noRequester struct{}

func (noRequester) RequestMissing(context.Context, rocketflow.MissingEvents) error { return nil }

const (
	// requestInterval is the minimum time between two requests of a process for the same stream. The actual time grows, since
	// a parked gap is checked ever less often.
	requestInterval = time.Second
	requestTimeout  = 5 * time.Second
	requestQueue    = 256

	// requestRate is the maximum number of requests that a consumer sends in a second. Further ones are sent when their gaps
	// are checked again.
	requestRate, requestBurst = 50, 100
	maxRequested              = 10_000 // streams that are remembered; beyond that all are forgotten
)

// missingRequester sends a consumer's requests for missing events in its own goroutine, so that the lanes don't wait for the
// broker.
type missingRequester struct {
	consumer  *consumer
	gaps      chan rocketflow.MissingEvents
	limiter   *rate.Limiter
	requested map[rocketflow.Stream]time.Time // used by run alone
}

func newMissingRequester(c *consumer) *missingRequester {
	return &missingRequester{
		consumer: c, gaps: make(chan rocketflow.MissingEvents, requestQueue), limiter: rate.NewLimiter(requestRate, requestBurst),
		requested: map[rocketflow.Stream]time.Time{},
	}
}

// offer queues a request, unless too many wait already. It never blocks.
func (r *missingRequester) offer(g rocketflow.MissingEvents) {
	if r.consumer.cfg.Requester == NoRequester {
		return
	}
	select {
	case r.gaps <- g:
	default:
	}
}

// run sends queued requests until ctx ends.
func (r *missingRequester) run(ctx context.Context) {
	for {
		select {
		case g := <-r.gaps:
			r.request(ctx, g)
		case <-ctx.Done():
			return
		}
	}
}

func (r *missingRequester) request(ctx context.Context, g rocketflow.MissingEvents) {
	c := r.consumer
	now := c.now()
	if since := now.Sub(r.requested[g.Stream()]); since >= 0 && since < requestInterval || !r.limiter.Allow() {
		return
	}
	if len(r.requested) >= maxRequested {
		clear(r.requested)
	}
	r.requested[g.Stream()] = now
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.cfg.Requester.RequestMissing(ctx, g)
	if err != nil {
		c.cfg.Logger.Debug("missing events can't be requested; they are requested again when the gap is checked again", keyConsumer, c.name, keySubject, g.Subject, keyError, err)
	}
	c.cfg.Listener.MissingRequested(MissingRequestedInfo{c.name, g, err})
}

// missing returns the events that are missing before e when its stream's position is last. Events that are older than the
// consumer are left out.
func (c *consumer) missing(e rocketflow.Event, last int64) rocketflow.MissingEvents {
	if last == 0 {
		last = max(0, c.topicsRead[e.Topic].Born.UnixMicro()-1)
	}
	return rocketflow.MissingEvents{Source: e.Source, Topic: e.Topic, Subject: e.Subject, After: last, Until: e.Sequence}
}
