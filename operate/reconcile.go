package operate

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed reconcile.sql
var reconcileSQL string

// ReconcileConfig says which events a reconciliation compares, and what it does about those that are missing.
type ReconcileConfig struct {
	// Since is how far back it goes.
	// Defaults to 1 h.
	Since time.Duration
	// Grace is how long after its publication an event may be unhandled without being looked for. At least 10 s.
	// Defaults to 1 min.
	Grace time.Duration
	// Expect are consumers that must exist. One that has never started has left nothing by which it could be known otherwise.
	Expect []ExpectedConsumer
	// Mend sends the events again that the broker was asked about and has lost, by the Config.Broker of their publisher's Operator.
	Mend bool
	// Limit is the maximum length of Reconciliation.Missing.
	// Defaults to 100.
	Limit int
}

// ExpectedConsumer is a consumer that must read a topic.
type ExpectedConsumer struct{ Consumer, Topic string }

func (c ReconcileConfig) withDefaults() ReconcileConfig {
	c.Since = cmp.Or(c.Since, time.Hour)
	c.Grace = cmp.Or(c.Grace, time.Minute)
	c.Limit = cmp.Or(c.Limit, 100)
	return c
}

func (c ReconcileConfig) validate() error {
	switch {
	case c.Grace < indexDelay:
		return valid.Fieldf("operate.ReconcileConfig.Grace", "%v: want at least %v", c.Grace, indexDelay)
	case c.Since <= c.Grace:
		return valid.Fieldf("operate.ReconcileConfig.Since", "%v: want more than Grace, %v", c.Since, c.Grace)
	case c.Limit < 1:
		return valid.Fieldf("operate.ReconcileConfig.Limit", "%d: want at least 1", c.Limit)
	}
	return nil
}

// Reconcile compares the events of the last Since, apart from those of the last Grace, with what consumers have recorded. It reads
// the outbox in pages by its key and looks up the records of each event, so its cost follows the number of those events. Of events
// of which nothing is recorded, the broker tells which are unread; for up to 100 of each consumer and topic exactly, for others by
// the age of the oldest unread message. Those that can't be unread are looked up one by one. After 2 min of questions the broker is asked
// no more, nor about a topic after a question that failed; the rest is unknown. Of each consumer at most 20,000 events that
// it has not handled are looked at, the oldest first: the others are counted as unread if it has unread messages, or else as unknown.
// What is unknown is never sent again: with Mend, the next reconciliation goes on where one has ended.
func (y *System) Reconcile(ctx context.Context, c ReconcileConfig) (*Reconciliation, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	r, err := y.newReconciling(ctx, c, nil)
	if err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	r.asking = 2 * time.Minute
	if err := r.askAllPositions(ctx); err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	for i := range r.members {
		if err := r.readWindow(ctx, i, "0"); err != nil {
			return nil, fmt.Errorf("reconcile schema %s: %w", r.members[i].config.Schema, err)
		}
	}
	if err := r.conclude(ctx); err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	return r.result(), nil
}

// reconciling is one pass of a reconciliation.
type reconciling struct {
	*System
	config      ReconcileConfig
	members     []member
	now         time.Time
	from, to    time.Time
	publishers  []PublisherTotal // of members
	subscribers []*subscriber
	unclaimed   map[UnclaimedType]int // Events is 0 in keys
	open        []openEvent           // not settled; at most maxOpen of each subscriber
	missing     []MissingEvent
	mended      int
	postponed   string
	brokerNote  string
	partial     bool
	asking      time.Duration   // how much longer the broker is asked
	silent      map[string]bool // topics of which the broker can't find messages
	// only restricts which consumers an event is compared with; nil: all. It has the causes for which it was found to be missing, where
	// those last.
	only map[uuid.UUID]map[consumerKey]MissingCause
	// keep returns an error if another process may reconcile by now; nil: none does.
	keep func(context.Context) error
}

// maxOpen is how many events that it has not settled are kept in memory for each consumer of a topic. It counts the others.
const maxOpen = 20_000

// consumerKey identifies a consumer of a topic. member is the key of its member; empty: it is in no schema.
type consumerKey struct{ member, consumer, topic string }

// openEvent is an event that a consumer has not settled.
type openEvent struct {
	publishedEvent
	publisher int // in members
	by        *subscriber
	unseen    bool         // nothing is recorded of it
	known     MissingCause // for which it was missing in the last pass, where that lasts
	missing   MissingCause // for which it is missing
	dropped   bool         // it need not be handled
	position  int64        // of the consumer in its stream; -1: none
}

// newReconciling prepares a pass.
func (y *System) newReconciling(ctx context.Context, c ReconcileConfig, keep func(context.Context) error) (*reconciling, error) {
	members, err := y.members(ctx)
	if err != nil {
		return nil, err
	}
	r := &reconciling{System: y, config: c, members: members, unclaimed: map[UnclaimedType]int{}, silent: map[string]bool{}, keep: keep}
	if r.now, err = members[0].Now(ctx); err != nil {
		return nil, err
	}
	r.from, r.to = r.now.Add(-c.Since), r.now.Add(-c.Grace)
	for i, m := range members {
		r.publishers = append(r.publishers, PublisherTotal{Service: m.service, Schema: m.config.Schema})
		if err := r.loadSubscribers(ctx, &members[i]); err != nil {
			return nil, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	for _, e := range c.Expect {
		if !slices.ContainsFunc(r.subscribers, func(s *subscriber) bool { return s.key.consumer == e.Consumer && s.key.topic == e.Topic }) {
			r.subscribers = append(r.subscribers, &subscriber{
				key: consumerKey{consumer: e.Consumer, topic: e.Topic}, absent: true, total: ConsumerReconciliation{Consumer: e.Consumer, Never: true},
			})
		}
	}
	return r, nil
}

// askAllPositions asks the broker how far the consumers' groups have read. Their tables are read afterwards: what the broker says was read
// is recorded there.
func (r *reconciling) askAllPositions(ctx context.Context) error {
	for _, s := range r.subscribers {
		if err := r.stillAlone(ctx); err != nil {
			return err
		}
		r.askPositions(ctx, s)
	}
	return ctx.Err()
}

// stillAlone returns an error if another process may reconcile by now.
func (r *reconciling) stillAlone(ctx context.Context) error {
	if r.keep == nil {
		return nil
	}
	return r.keep(ctx)
}

// errAskedEnough ends the questions of a pass to the broker.
var errAskedEnough = errors.New("not asked about all events, as its answers took too long: reconcile again")

// ask asks the broker something, within the time for that.
func (r *reconciling) ask(ctx context.Context, question func(context.Context) error) error {
	if r.asking <= 0 {
		r.brokerNote = errAskedEnough.Error()
		return errAskedEnough
	}
	one, cancel := context.WithTimeout(ctx, min(brokerTimeout, r.asking))
	defer cancel()
	begun := time.Now()
	err := question(one)
	r.asking -= time.Since(begun)
	if err != nil {
		r.brokerNote = err.Error()
	}
	return err
}

// askPositions asks the broker how far the group of a consumer has read the topic.
func (r *reconciling) askPositions(ctx context.Context, s *subscriber) {
	switch {
	case s.absent:
		return
	case r.System.config.Broker == nil:
		r.brokerNote = "not asked, as none is configured: set --namesrv or ROCKETMQ_NAMESRV"
		return
	case s.group == "":
		r.brokerNote = "not asked about consumer " + s.key.consumer + ", whose group is not recorded until its service starts with this version"
		return
	}
	var positions []broker.QueuePosition
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		positions, err = r.System.config.Broker.QueuePositions(ctx, s.group, s.key.topic)
		return err
	})
	if err != nil {
		return
	}
	s.asked, s.positions = true, positions
	s.total.Never = !slices.ContainsFunc(positions, func(p broker.QueuePosition) bool { return p.Committed >= 0 })
}

// conclude asks the broker about what nothing is recorded of, and mends what is lost.
func (r *reconciling) conclude(ctx context.Context) error {
	checked := map[consumerKey]int{}
	for i := range r.open {
		o := &r.open[i]
		if !o.unseen {
			continue
		}
		s := o.by
		unread := s.mayBeUnread(o.ackedAt)
		switch {
		case s.absent:
			s.total.Unread++
		case o.ackedAt.IsZero():
			s.total.Owed++
		case !unread && s.wasBornAfter(o): // it need not have been there when the consumer began
			o.dropped = true
		case !s.asked:
			s.total.Unknown++
		case o.known != "":
			r.miss(o, o.known)
		case unread && checked[s.key] == maxChecked:
			s.total.Unread++
		default:
			if unread {
				checked[s.key]++
			}
			if err := r.check(ctx, o); err != nil {
				return err
			}
		}
	}
	for _, s := range r.subscribers {
		r.partial = r.partial || s.surplus > 0
		if s.absent || s.lag() > 0 {
			s.total.Unread += s.surplus
		} else {
			s.total.Unknown += s.surplus
		}
	}
	if r.config.Mend {
		return r.mend(ctx)
	}
	return nil
}

// maxChecked is how many of the events of each consumer and topic that may be unread are looked for at the broker one by one.
const maxChecked = 100

// check asks the broker where an event is.
func (r *reconciling) check(ctx context.Context, o *openEvent) error {
	if err := r.stillAlone(ctx); err != nil {
		return err
	}
	s := o.by
	stored, answered := r.find(ctx, o)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !answered:
		s.total.Unknown++
		return nil
	case len(stored) == 0 && s.wasBornAfter(o):
		o.dropped = true
		return nil
	case len(stored) == 0 && s.mayHaveExpired(o.ackedAt):
		r.miss(o, MissingExpired)
		return nil
	case len(stored) == 0:
		r.miss(o, MissingLost)
		return nil
	}
	for _, m := range stored {
		if !s.hasRead(m) {
			s.total.Unread++
			return nil
		}
	}
	switch {
	case s.wasBornAfter(o):
		o.dropped = true
	case o.position >= 0:
		r.miss(o, MissingPassed)
	default:
		r.miss(o, MissingUnrecorded)
	}
	return nil
}

// find returns the copies of an event that the broker holds, and whether it has answered. After an error it asks no more about the topic: a
// broker that doesn't answer would take up the time of all questions.
func (r *reconciling) find(ctx context.Context, o *openEvent) (stored []broker.StoredMessage, answered bool) {
	topic := o.by.key.topic
	if r.silent[topic] {
		return nil, false
	}
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		stored, err = r.System.config.Broker.FindMessages(ctx, topic, o.id.String(), o.recordedAt.Add(-time.Hour), r.now.Add(time.Hour))
		return err
	})
	r.silent[topic] = err != nil // ask keeps why
	return stored, err == nil
}

func (r *reconciling) miss(o *openEvent, cause MissingCause) {
	o.by.total.Missing++
	o.missing = cause
	r.missing = append(r.missing, MissingEvent{
		EventID: o.id, Type: o.eventType, Topic: o.topic, Subject: o.subject, RecordedAt: o.recordedAt,
		Publisher: r.members[o.publisher].config.Schema, Consumer: o.by.key.consumer, Schema: o.by.total.Schema, Cause: cause,
		publisher: o.publisher, by: o.by,
	})
}

// mend sends the events again that the broker has lost, the oldest first.
func (r *reconciling) mend(ctx context.Context) error {
	// A broker that has lost messages uses their offsets again. A group whose offset is beyond the end of a queue would not read
	// what is stored there now; running consumers correct that within a minute.
	beyond := map[string]bool{}
	for _, s := range r.subscribers {
		if i := slices.IndexFunc(s.positions, func(p broker.QueuePosition) bool { return p.Committed > p.End }); i >= 0 && s.total.Missing > 0 {
			p := s.positions[i]
			beyond[s.key.topic] = true
			r.postponed = fmt.Sprintf("events of topic %s are not sent yet: group %s is at offset %d of queue %d of %s, which ends at %d, as the broker has lost messages; its consumers correct that while they run: try again in a minute",
				s.key.topic, s.group, p.Committed, p.Queue, p.Broker, p.End)
		}
	}
	for i := range r.members {
		m := &r.members[i]
		if m.config.Broker == nil {
			continue
		}
		lost := map[uuid.UUID][]*MissingEvent{}
		for j := range r.missing {
			if v := &r.missing[j]; v.Cause.mendable() && v.publisher == i && !beyond[v.Topic] {
				lost[v.EventID] = append(lost[v.EventID], v)
			}
		}
		byAge := slices.SortedFunc(maps.Keys(lost), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
		for page := range slices.Chunk(byAge, reconcilePage) {
			if err := r.stillAlone(ctx); err != nil {
				return err
			}
			n, err := m.Resend(ctx, ResendFilter{IDs: page})
			r.mended += n
			if err != nil {
				return err
			}
			for _, id := range page {
				for _, v := range lost[id] {
					v.Mended = true
					v.by.total.Mended++
				}
			}
		}
	}
	return nil
}

// result sums up the pass.
func (r *reconciling) result() *Reconciliation {
	x := &Reconciliation{From: r.from, To: r.to, Publishers: r.publishers, Missing: r.missing, Mended: r.mended, Postponed: r.postponed, Unread: r.System.config.Unread, Partial: r.partial}
	x.Consumers = mergeTopics(r.subscribers)
	for key, n := range r.unclaimed {
		key.Events = n
		x.Unclaimed = append(x.Unclaimed, key)
	}
	slices.SortFunc(x.Unclaimed, func(a, b UnclaimedType) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Type, b.Type))
	})
	slices.SortStableFunc(x.Missing, func(a, b MissingEvent) int { return a.RecordedAt.Compare(b.RecordedAt) })
	if len(x.Missing) > r.config.Limit {
		x.Missing = x.Missing[:r.config.Limit]
	}
	if _, _, _, _, unknown := x.Totals(); unknown > 0 {
		x.Broker = r.brokerNote
	}
	return x
}

// mergeTopics sums the topics of each consumer.
func mergeTopics(list []*subscriber) []ConsumerReconciliation {
	var all []ConsumerReconciliation
	type consumer struct{ member, name string }
	at := map[consumer]int{}
	for _, s := range list {
		t, key := s.total, consumer{s.key.member, s.key.consumer}
		i, merged := at[key]
		if !merged {
			t.Never = t.Never && t.Unread > 0
			t.Parked = nil
			i = len(all)
			at[key] = i
			all = append(all, t)
		} else {
			c := &all[i]
			c.Handled, c.Skipped, c.Owed, c.Unread = c.Handled+t.Handled, c.Skipped+t.Skipped, c.Owed+t.Owed, c.Unread+t.Unread
			c.Missing, c.Mended, c.Unknown, c.Never = c.Missing+t.Missing, c.Mended+t.Mended, c.Unknown+t.Unknown, c.Never || t.Never && t.Unread > 0
			if !t.Oldest.IsZero() && (c.Oldest.IsZero() || t.Oldest.Before(c.Oldest)) {
				c.Oldest = t.Oldest
			}
		}
		for reason, n := range s.total.Parked {
			if all[i].Parked == nil {
				all[i].Parked = map[HandlingState]int{}
			}
			all[i].Parked[reason] += n
		}
	}
	for i := range all {
		c := &all[i]
		c.Never = c.Never && c.Handled == 0
		c.Expected = c.Handled + c.Skipped + c.Waiting() + c.Missing + c.Unknown
	}
	return all
}
