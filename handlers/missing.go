package handlers

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
)

// Requester requests events that a consumer misses from their publisher, which sends them again. An *outbox.Outbox is one.
type Requester interface {
	// RequestMissing sends a request. nil means that it was sent, not that it was answered.
	RequestMissing(ctx context.Context, g rocketflow.MissingEvents) error
}

// NoRequester is a Config.Requester that requests nothing: an event that the broker has lost holds its stream until an operator
// sends it again, or accepts the gap. It is for consumers of publishers that do not answer requests, and for tests.
var NoRequester Requester = noRequester{}

type noRequester struct{}

func (noRequester) RequestMissing(context.Context, rocketflow.MissingEvents) error { return nil }

const (
	// requestInterval is how soon events of the same stream may be requested again. How often they are depends on how often
	// one process looks at a parked gap: less and less.
	requestInterval = time.Second
	requestTimeout  = 5 * time.Second
	requestQueue    = 256

	// requestRate is how many requests a second a consumer sends. What is beyond it is requested when the gap is looked at
	// again.
	requestRate, requestBurst = 50, 100
	maxRequested              = 10_000 // streams that are remembered; beyond it all are forgotten
)

// missingRequester sends a consumer's requests for missing events. It does so beside the lanes, which don't wait for the
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

// offer has a request sent unless too many wait. It never blocks.
func (r *missingRequester) offer(g rocketflow.MissingEvents) {
	if r.consumer.cfg.Requester == NoRequester {
		return
	}
	select {
	case r.gaps <- g:
	default:
	}
}

// run sends what is offered until ctx ends.
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
		c.cfg.Logger.Debug("can't request for missing events", keyConsumer, c.name, keySubject, g.Subject, keyError, err)
	}
	c.cfg.Listener.MissingRequested(MissingRequestedInfo{c.name, g, err})
}

// missing returns what e waits for when its stream's position is last. What is older than the consumer is left out.
func (c *consumer) missing(e rocketflow.Event, last int64) rocketflow.MissingEvents {
	if last == 0 {
		last = max(0, c.topicsRead[e.Topic].Born.UnixMicro()-1)
	}
	return rocketflow.MissingEvents{Source: e.Source, Topic: e.Topic, Subject: e.Subject, After: last, Until: e.Sequence}
}
