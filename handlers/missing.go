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
	// askEvery is how soon the same stream may be asked for again. How often it is, is set by how often a parked gap is
	// looked at, by one process at a time: less and less.
	askEvery   = time.Second
	askTimeout = 5 * time.Second
	askQueue   = 256

	// A consumer asks so many times a second; what is too much is asked when the gap is looked at again.
	askRate, askBurst = 50, 100
	maxAsked          = 10_000 // streams that are remembered; beyond that all are forgotten
)

// asker sends the questions of a consumer for what it misses, behind the lanes: they don't wait for the broker.
type asker struct {
	consumer *consumer
	gaps     chan rocketflow.MissingEvents
	limiter  *rate.Limiter
	asked    map[rocketflow.Stream]time.Time // touched by run alone
}

func newAsker(c *consumer) *asker {
	return &asker{
		consumer: c, gaps: make(chan rocketflow.MissingEvents, askQueue), limiter: rate.NewLimiter(askRate, askBurst),
		asked: map[rocketflow.Stream]time.Time{},
	}
}

// offer never blocks.
func (a *asker) offer(g rocketflow.MissingEvents) {
	if a.consumer.cfg.Requester == NoRequester {
		return
	}
	select {
	case a.gaps <- g:
	default:
	}
}

// run asks until the consumer drains.
func (a *asker) run(ctx context.Context) {
	for {
		select {
		case g := <-a.gaps:
			a.ask(ctx, g)
		case <-a.consumer.stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (a *asker) ask(ctx context.Context, g rocketflow.MissingEvents) {
	c := a.consumer
	now := c.now()
	if since := now.Sub(a.asked[g.Stream()]); since >= 0 && since < askEvery || !a.limiter.Allow() {
		return
	}
	if len(a.asked) >= maxAsked {
		clear(a.asked)
	}
	a.asked[g.Stream()] = now
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := c.cfg.Requester.RequestMissing(ctx, g)
	if err != nil {
		c.cfg.Logger.Debug("can't ask for missing events", keyConsumer, c.name, keySubject, g.Subject, keyError, err)
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
