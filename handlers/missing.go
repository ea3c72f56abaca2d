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

// NoRequester, as Config.Requester, requests nothing: an event that the broker has lost holds its stream until an operator
// sends it again, or accepts the gap. It is for consumers of publishers that do not answer requests, and for tests.
var NoRequester Requester = noRequester{}

type noRequester struct{}

func (noRequester) RequestMissing(context.Context, rocketflow.MissingEvents) error { return nil }

const (
	// requestInterval is how soon the same stream may be requested for again. How often it is, is set by how often a parked gap is
	// looked at, by one process at a time: less and less.
	requestInterval = time.Second
	requestTimeout  = 5 * time.Second
	requestQueue    = 256

	// A consumer asks so many times a second; what is too much is requested when the gap is looked at again.
	requestRate, requestBurst = 50, 100
	maxRequested              = 10_000 // streams that are remembered; beyond that all are forgotten
)

// missingRequester sends the questions of a consumer for what it misses, behind the lanes: they don't wait for the broker.
type missingRequester struct {
	consumer  *consumer
	gaps      chan rocketflow.MissingEvents
	limiter   *rate.Limiter
	requested map[rocketflow.Stream]time.Time // touched by run alone
}

func newMissingRequester(c *consumer) *missingRequester {
	return &missingRequester{
		consumer: c, gaps: make(chan rocketflow.MissingEvents, requestQueue), limiter: rate.NewLimiter(requestRate, requestBurst),
		requested: map[rocketflow.Stream]time.Time{},
	}
}

// offer never blocks.
func (a *missingRequester) offer(g rocketflow.MissingEvents) {
	if a.consumer.cfg.Requester == NoRequester {
		return
	}
	select {
	case a.gaps <- g:
	default:
	}
}

// run sends what is offered until ctx ends.
func (a *missingRequester) run(ctx context.Context) {
	for {
		select {
		case g := <-a.gaps:
			a.request(ctx, g)
		case <-ctx.Done():
			return
		}
	}
}

func (a *missingRequester) request(ctx context.Context, g rocketflow.MissingEvents) {
	c := a.consumer
	now := c.now()
	if since := now.Sub(a.requested[g.Stream()]); since >= 0 && since < requestInterval || !a.limiter.Allow() {
		return
	}
	if len(a.requested) >= maxRequested {
		clear(a.requested)
	}
	a.requested[g.Stream()] = now
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.cfg.Requester.RequestMissing(ctx, g)
	if err != nil {
		c.cfg.Logger.Debug("can't request for missing events", keyConsumer, c.name, keySubject, g.Subject, keyError, err)
	}
	c.cfg.Listener.MissingRequested(MissingRequestedInfo{c.name, g, err})
}

// missing is what keeps e waiting, of which its stream has come to last. What is older than the consumer is none of its
// business.
func (c *consumer) missing(e rocketflow.Event, last int64) rocketflow.MissingEvents {
	if last == 0 {
		last = max(0, c.topicsRead[e.Topic].Born.UnixMicro()-1)
	}
	return rocketflow.MissingEvents{Source: e.Source, Topic: e.Topic, Subject: e.Subject, After: last, Until: e.Sequence}
}
