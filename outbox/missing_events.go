package outbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/repeat"
	"github.com/rocketflow/rocketflow/internal/wire"
)

//go:embed missing_events.sql
var missingEventsSQL string

const (
	resendPageRows  = 50      // events read at once,
	resendPageBytes = 1 << 20 // up to the first with which their bodies reach so many bytes

	requestsAtOnce   = 4                // missing-events requests that are processed concurrently
	resendInterval   = time.Second      // for so long after a resend, requests for the same events are ignored
	requestRetry     = 30 * time.Second // pause before the next attempt to subscribe
	maxRecentResends = 10_000           // streams that are remembered; beyond that all are forgotten
)

// RequestMissing sends a consumer's request for missing events to their publisher, which may be another service; it makes
// the outbox a handlers.Requester. nil means that the request was sent, not that the events will be: the consumer must repeat
// the request for as long as events are missing.
func (o *Outbox) RequestMissing(ctx context.Context, missing rocketflow.MissingEvents) error {
	if o.current() == nil {
		return ErrNotStarted
	}
	if err := wire.ValidateMissingEvents(missing); err != nil {
		return fmt.Errorf("request missing events: %w", err)
	}
	e, err := wire.NewEvent(missing)
	if err != nil {
		return fmt.Errorf("request missing events: %w", err)
	}
	e.ID, e.Source, e.Time = clock.Stamp(o.config.Clock, e.ID), o.config.Source, o.config.Clock.Now()
	_, err = o.config.Broker.Send(ctx, wire.MessageOf(e))
	if errors.Is(err, broker.ErrTopicNotFound) {
		o.logRequestsAreOff()
	}
	if err != nil {
		return fmt.Errorf("request missing events: %w", err)
	}
	return nil
}

// logRequestsAreOff logs, once in a process, that the topic of missing-events requests doesn't exist.
func (o *Outbox) logRequestsAreOff() {
	o.requestsAreOff.Do(func() {
		o.log.Warn("the topic of missing-events requests doesn't exist: consumers can't request events that the broker lost; create it", keyTopic, rocketflow.MissingEventsTopic)
	})
}

// resender receives missing-events requests and sends the events again, unchanged, from the rows of this outbox. Each request
// goes to one process of the source. Any user with the right to publish to the topic can send requests, so what is sent for
// one request, for one requester and in total is limited: see requestLimits.
type resender struct {
	outbox   *Outbox
	database string
	log      *repeat.Logger
	limits   *requestLimits
	events   *rate.Limiter
	subscriber

	mu     sync.Mutex
	recent map[rocketflow.Stream]lastResend
}

// lastResend is the range of events that was last sent again of a stream, and when.
type lastResend struct {
	after, until int64
	at           time.Time
}

func (o *Outbox) startResender(database string) *resender {
	r := &resender{
		outbox: o, database: database, recent: map[rocketflow.Stream]lastResend{},
		log:    repeat.New(o.log, repeat.Config{}),
		limits: newRequestLimits(o.config.ResendBytes),
		events: rate.NewLimiter(rate.Limit(o.config.ResendRate), max(1, int(o.config.ResendRate/10))),
	}
	subscription := broker.Subscription{
		Group: o.config.Group + resendSuffix, Topics: []string{rocketflow.MissingEventsTopic}, Begin: broker.BeginNewest(), MaxInFlight: requestsAtOnce,
	}
	r.subscriber = subscriber{
		outbox: o, what: "missing-events requests", retry: requestRetry,
		subscribe: func(ctx context.Context) (broker.Consumer, error) {
			c, err := o.config.Broker.Subscribe(ctx, subscription, r.receive)
			if errors.Is(err, broker.ErrBeginsOldest) { // old requests are answered as well, within the limits
				subscription.Begin = broker.BeginOldest()
				c, err = o.config.Broker.Subscribe(ctx, subscription, r.receive)
			}
			return c, err
		},
		failed: func(err error) {
			if errors.Is(err, broker.ErrTopicNotFound) {
				o.logRequestsAreOff()
				return
			}
			o.log.Warn("missing-events requests can't be received, so consumers that miss events wait; it is retried", keyError, err, keyRetryAfter, requestRetry)
		},
	}
	if o.config.ResendRate >= 0 {
		r.start()
	}
	return r
}

func (r *resender) stop(ctx context.Context) {
	r.subscriber.stop(ctx)
	r.log.Flush()
}

// receive acknowledges every request, also one that fails: a requester whose events don't come repeats it.
func (r *resender) receive(ctx context.Context, d broker.Delivery) error {
	config := &r.outbox.config
	requester, missing, ok := readRequest(d)
	if !ok || missing.Source != config.Source || len(config.Topics) > 0 && !slices.Contains(config.Topics, missing.Topic) || !r.due(missing) {
		return nil
	}
	info := ResentInfo{Requester: requester, Missing: missing}
	if info.Err = r.limits.allow(config.Clock.Now(), requester, missing.Stream()); info.Err != nil {
		info.Refused = true
	} else {
		sent := missing
		info.Sent, sent.Until, info.Gone, info.Err = r.resend(ctx, requester, missing)
		r.remember(sent, info.Err)
	}
	if ctx.Err() == nil {
		r.report(info)
	}
	return nil
}

// report logs each kind of failure once and then counts it, because there may be any number of requests.
func (r *resender) report(i ResentInfo) {
	m := i.Missing
	switch {
	case i.Refused:
		r.log.Warn("a missing-events request was refused; a consumer that misses events repeats it. If no consumer misses events, check who may publish to the topic of these requests",
			keySource, i.Requester, keyError, i.Err, keyStreamTopic, m.Topic, keySubject, m.Subject)
	case i.Err != nil:
		r.log.Warn("missing events were not all sent again; the consumer repeats its request", keyTopic, m.Topic, keySubject, m.Subject, keySource, i.Requester, keySent, i.Sent, keyError, i.Err)
	case i.Gone:
		r.log.Warn("a consumer misses events that are no longer kept, so its stream waits: look at the consumer's parked events", keyTopic, m.Topic, keySubject, m.Subject, keySource, i.Requester, keyAfterSequence, m.After, keyUntilSequence, m.Until)
	}
	r.outbox.listener.Resent(i)
}

// readRequest decodes a request, which may come from any sender and have any size. requester is the source that it names.
func readRequest(d broker.Delivery) (requester string, missing rocketflow.MissingEvents, ok bool) {
	if len(d.Body) > maxRequestBytes {
		return "", missing, false
	}
	e, err := wire.EventOf(d)
	if err == nil {
		missing, err = wire.DecodeBody[rocketflow.MissingEvents](e)
	}
	return e.Source, missing, err == nil && wire.ValidateMissingEvents(missing) == nil && e.Type == missing.EventMeta().Type
}

// due reports whether a request is for events that were not sent again within the last resendInterval, perhaps for
// another consumer: all consumers receive a resend.
func (r *resender) due(missing rocketflow.MissingEvents) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.recent[missing.Stream()]
	age := r.outbox.config.Clock.Now().Sub(last.at)
	return !ok || missing.After < last.after || missing.Until > last.until || age < 0 || age >= resendInterval
}

func (r *resender) remember(missing rocketflow.MissingEvents, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		return
	}
	if len(r.recent) >= maxRecentResends {
		clear(r.recent)
	}
	r.recent[missing.Stream()] = lastResend{missing.After, missing.Until, r.outbox.config.Clock.Now()}
}

// resend sends the missing events that the outbox still has, up to ResendLimit and ResendBytes: the consumer requests the
// others when it has these. All events before until were sent. gone reports that the outbox no longer has the first of them.
func (r *resender) resend(ctx context.Context, requester string, missing rocketflow.MissingEvents) (sent int, until int64, gone bool, err error) {
	config := &r.outbox.config
	size, after := 0, missing.After
	for sent < config.ResendLimit && size < config.ResendBytes {
		limit := min(resendPageRows, config.ResendLimit-sent)
		page, more, err := r.page(ctx, missing, after, limit, min(resendPageBytes, config.ResendBytes-size))
		if err != nil {
			return sent, after + 1, gone, err
		}
		if sent == 0 {
			gone = len(page) == 0 || missing.After > 0 && page[0].Previous > missing.After
		}
		for _, e := range page {
			if err := r.events.Wait(ctx); err != nil {
				return sent, after + 1, gone, err
			}
			if _, err := config.Broker.Send(ctx, wire.MessageOf(e)); err != nil {
				return sent, after + 1, gone, fmt.Errorf("send event %s again: %w", e.ID, err)
			}
			r.limits.sent(config.Clock.Now(), requester, e)
			sent++
			size += len(e.Body)
			after = e.Sequence
		}
		if !more {
			return sent, missing.Until, gone, nil
		}
	}
	return sent, after + 1, gone, nil
}

// page reads the next missing events. more reports that there may be others.
func (r *resender) page(ctx context.Context, missing rocketflow.MissingEvents, after int64, limit, bytes int) (page []rocketflow.Event, more bool, err error) {
	rows, err := r.outbox.db().Query(ctx, r.outbox.queries.Get("MissingEvents"), missing.Source, missing.Topic, missing.Subject, after, missing.Until, limit, bytes)
	if err == nil {
		if page, err = pgx.CollectRows(rows, scanEvent(r.database)); err == nil {
			return page, isFull(page, limit, bytes), nil
		}
	}
	return nil, false, fmt.Errorf("read missing events: %w", err)
}

// isFull reports whether a page ended by its limits.
func isFull(page []rocketflow.Event, limit, bytes int) bool {
	size := 0
	for _, e := range page {
		size += len(e.Body)
	}
	return len(page) >= limit || size >= bytes
}
