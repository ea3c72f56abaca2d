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

//go:embed refill.sql
var refillSQL string

const (
	refillPage   = 50          // rows read at once
	refillBytes  = 1 << 20     // and so many bytes of bodies, and one event more
	refillAtOnce = 4           // questions answered side by side
	refillSettle = time.Second // what was just answered is on its way: the same question again is left alone
	refillRetry  = 30 * time.Second

	maxAnswered = 10_000 // streams that are remembered; beyond that all are forgotten
)

// RequestMissing sends the request for what a consumer misses, of whichever publisher; it makes the outbox a handlers.Requester. nil
// means that the question is out, which is no promise of an answer: the consumer asks again.
func (o *Outbox) RequestMissing(ctx context.Context, g rocketflow.MissingEvents) error {
	if o.current() == nil {
		return ErrNotStarted
	}
	if err := wire.ValidateMissingEvents(g); err != nil {
		return fmt.Errorf("ask for missing events: %w", err)
	}
	e, err := wire.NewEvent(g)
	if err != nil {
		return fmt.Errorf("ask for missing events: %w", err)
	}
	e.ID, e.Source, e.Time = clock.Stamp(o.config.Clock, e.ID), o.config.Source, o.config.Clock.Now()
	_, err = o.config.Broker.Send(ctx, wire.MessageOf(e))
	if errors.Is(err, broker.ErrTopicNotFound) {
		o.sayRefillIsOff()
	}
	if err != nil {
		return fmt.Errorf("ask for missing events: %w", err)
	}
	return nil
}

func (o *Outbox) sayRefillIsOff() {
	o.refillOff.Do(func() {
		o.log.Warn("a topic is missing: consumers can't ask for events that the broker lost", "topic", rocketflow.MissingEventsTopic)
	})
}

// refiller answers consumers that miss events of this outbox: it sends them again, from its rows, as they are. Of all
// processes of the source one gets a question. Questions come from anywhere, so each is bounded, and so is what an asker
// and all askers get: see refillLimits.
type refiller struct {
	outbox   *Outbox
	database string
	log      *repeat.Logger
	cancel   context.CancelFunc
	done     chan struct{}
	limits   *refillLimits
	events   *rate.Limiter

	mu       sync.Mutex
	answered map[rocketflow.Stream]answered
}

// answered is what was last sent again of a stream.
type answered struct {
	after, until int64
	at           time.Time
}

func (o *Outbox) startRefill(database string) *refiller {
	ctx, cancel := context.WithCancel(context.Background())
	f := &refiller{
		outbox: o, database: database, cancel: cancel, done: make(chan struct{}), answered: map[rocketflow.Stream]answered{},
		log:    repeat.New(o.log, repeat.Config{}),
		limits: newResendLimits(o.config.ResendBytes),
		events: rate.NewLimiter(rate.Limit(o.config.ResendRate), max(1, int(o.config.ResendRate/10))),
	}
	go f.run(ctx)
	return f
}

// stop ends the subscription, until ctx ends.
func (f *refiller) stop(ctx context.Context) {
	f.cancel()
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}

// run subscribes, for as long as that takes: the outbox publishes without it.
func (f *refiller) run(ctx context.Context) {
	defer close(f.done)
	defer f.log.Flush()
	if f.outbox.config.ResendRate < 0 {
		return
	}
	s := broker.Subscription{
		Group: f.outbox.config.Group + "_refill", Topics: []string{rocketflow.MissingEventsTopic}, Begin: broker.BeginNewest(), MaxInFlight: refillAtOnce,
	}
	for {
		consumer, err := f.outbox.config.Broker.Subscribe(ctx, s, f.receive)
		switch {
		case err == nil:
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := consumer.Stop(stop); err != nil {
				f.outbox.log.Warn("can't stop to listen for missing events", "error", err)
			}
			return
		case errors.Is(err, broker.ErrTopicNotFound):
			f.outbox.sayRefillIsOff()
		case ctx.Err() == nil:
			f.outbox.log.Warn("can't listen for missing events; next try in a while", "error", err, "after", refillRetry)
		}
		retry := time.NewTimer(refillRetry)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
	}
}

// receive settles every question: who gets no answer asks again.
func (f *refiller) receive(ctx context.Context, d broker.Delivery) error {
	config := &f.outbox.config
	asker, g, ok := question(d)
	if !ok || g.Source != config.Source || len(config.Topics) > 0 && !slices.Contains(config.Topics, g.Topic) || !f.due(g) {
		return nil
	}
	info := ResentInfo{Requester: asker, Gap: g}
	if info.Err = f.limits.allow(config.Clock.Now(), asker, g.Stream()); info.Err != nil {
		info.Refused = true
	} else {
		sent := g
		info.Sent, sent.Until, info.Gone, info.Err = f.answer(ctx, asker, g)
		f.remember(sent, info.Err)
	}
	if ctx.Err() == nil {
		f.tell(info)
	}
	return nil
}

// tell logs each kind of trouble once, and then counts it: questions come as fast as someone asks them.
func (f *refiller) tell(i ResentInfo) {
	g := i.Gap
	switch {
	case i.Refused:
		f.log.Warn("question for missing events refused; a consumer that misses them asks again. If it is none: who may publish to the topic of questions?",
			"source", i.Requester, "error", i.Err, "stream_topic", g.Topic, "subject", g.Subject)
	case i.Err != nil:
		f.log.Warn("events not all sent again to a consumer that misses them; it asks again", "topic", g.Topic, "subject", g.Subject, "source", i.Requester, "sent", i.Sent, "error", i.Err)
	case i.Gone:
		f.log.Warn("a consumer misses events that are no longer kept: look at its parked events", "topic", g.Topic, "subject", g.Subject, "source", i.Requester, "after", g.After, "until", g.Until)
	}
	f.outbox.listener.Resent(i)
}

// question reads a message. Anybody may send one, of any size.
func question(d broker.Delivery) (asker string, g rocketflow.MissingEvents, ok bool) {
	if len(d.Body) > maxQuestion {
		return "", g, false
	}
	e, err := wire.EventOf(d)
	if err == nil {
		g, err = wire.DecodeBody[rocketflow.MissingEvents](e)
	}
	return e.Source, g, err == nil && wire.ValidateMissingEvents(g) == nil && e.Type == g.EventMeta().Type
}

// due tells whether a question is not one that was just answered, to another consumer perhaps: all of them get what is sent.
func (f *refiller) due(g rocketflow.MissingEvents) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.answered[g.Stream()]
	age := f.outbox.config.Clock.Now().Sub(last.at)
	return !ok || g.After < last.after || g.Until > last.until || age < 0 || age >= refillSettle
}

func (f *refiller) remember(g rocketflow.MissingEvents, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		return
	}
	if len(f.answered) >= maxAnswered {
		clear(f.answered)
	}
	f.answered[g.Stream()] = answered{g.After, g.Until, f.outbox.config.Clock.Now()}
}

// answer sends what is kept of a gap, at most ResendLimit events and ResendBytes: the consumer asks for the rest when it has
// these. Up to until the gap is answered now. gone: the first of them are not kept.
func (f *refiller) answer(ctx context.Context, asker string, g rocketflow.MissingEvents) (sent int, until int64, gone bool, err error) {
	config := &f.outbox.config
	size, after := 0, g.After
	for sent < config.ResendLimit && size < config.ResendBytes {
		limit := min(refillPage, config.ResendLimit-sent)
		page, more, err := f.page(ctx, g, after, limit, min(refillBytes, config.ResendBytes-size))
		if err != nil {
			return sent, after + 1, gone, err
		}
		if sent == 0 {
			gone = len(page) == 0 || g.After > 0 && page[0].Previous > g.After
		}
		for _, e := range page {
			if err := f.events.Wait(ctx); err != nil {
				return sent, after + 1, gone, err
			}
			if _, err := config.Broker.Send(ctx, wire.MessageOf(e)); err != nil {
				return sent, after + 1, gone, fmt.Errorf("send event %s again: %w", e.ID, err)
			}
			f.limits.sent(config.Clock.Now(), asker, e)
			sent++
			size += len(e.Body)
			after = e.Sequence
		}
		if !more {
			return sent, g.Until, gone, nil
		}
	}
	return sent, after + 1, gone, nil
}

// page reads the next events of a gap. more: there may be others.
func (f *refiller) page(ctx context.Context, g rocketflow.MissingEvents, after int64, limit, bytes int) (page []rocketflow.Event, more bool, err error) {
	rows, err := f.outbox.config.Pool.Query(ctx, f.outbox.queries.Get("Refill"), g.Source, g.Topic, g.Subject, after, g.Until, limit, bytes)
	if err == nil {
		if page, err = pgx.CollectRows(rows, scanEvent(f.database)); err == nil {
			return page, isFull(page, limit, bytes), nil
		}
	}
	return nil, false, fmt.Errorf("read missing events: %w", err)
}

// isFull tells whether a page ended by its limits.
func isFull(page []rocketflow.Event, limit, bytes int) bool {
	size := 0
	for _, e := range page {
		size += len(e.Body)
	}
	return len(page) >= limit || size >= bytes
}
