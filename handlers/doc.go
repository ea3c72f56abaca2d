// Package handlers runs functions for events: each event takes effect once per consumer, and the events of one aggregate
// take effect in order.
//
// Use it in a service that reacts to events, its own or those of other services. Register functions at a [Router] and start
// it:
//
//	router, err := handlers.New(handlers.Config{Source: "billing", Pool: pool, Transactor: outbox, Broker: client})
//	if err != nil {
//		return err
//	}
//	handlers.On(router, "invoices", func(ctx context.Context, tx rocketflow.Tx, p OrderPlaced) error {
//		_, err := tx.Exec(ctx, "INSERT INTO invoice (order_id) VALUES ($1)", p.OrderID)
//		return err // nil commits, and the event is handled
//	})
//	if err := router.Start(ctx); err != nil {
//		return err
//	}
//	defer router.Stop(ctx)
//
// [On] registers a function for a payload type, [Router.Handle] one for any event of a topic and type. [Config] has the
// defaults of all consumers, [Router.Configure] sets the options of one.
//
// # What a handler may rely on
//
//   - Its effects in tx happen once for each event (source and id) and consumer, whatever is delivered twice and whatever
//     process dies: the record that the event was handled commits in the same transaction. Its effects outside tx may be
//     repeated, see below.
//   - It sees the events of one stream (source, topic, subject) in the order of their commits, without gaps, one at a
//     time, across all processes. This depends on Postgres alone: a row of the table position, made before the first event
//     runs and locked while a handler runs, and the link from each event to its predecessor. The broker's queues make it
//     cheap and are not relied on.
//   - A failing event holds back its own stream, or only itself if it has no order. Other streams go on, also while a handler
//     takes long: the events behind it move to Postgres before they take the room of others.
//   - Events without order run as they come, concurrently.
//
// # What may run twice
//
// Several events may share a transaction, up to ConsumerConfig.BatchSize. When a handler fails, the transaction rolls
// back: the handlers of the events before it run once more, in a transaction without it; the one that failed runs once
// more alone, unless its error decides about the event (below); those behind it have not run yet. So a call to another
// system may be repeated for neighbours of a failing event, as it may after a crash, a deadlock or a lost connection.
// BatchSize 1 gives each event a transaction of its own. Stop waits for running handlers and commits their work. A handler
// must leave the transaction usable and must not end it.
//
// A lane begins with batches of a few events. Each success doubles its batch up to BatchSize; a failing event, a deadlock
// and a serialization failure halve it, and after deadlocks it grows ever more slowly. So handlers that lock rows in
// different orders need no setting.
//
// # What a handler returns
//
// nil commits. [Discard] and rocketflow.ErrStale undo its effects and settle the event. [RetryAfter] undoes its effects and
// has the event tried again later without counting an attempt. [Dead], and rocketflow.ErrUndecodable, make it a dead letter
// at once. Any other error, a panic, an end of its goroutine and a passed deadline count an attempt: the event is parked and
// tried again with exponential backoff, by default for about a day; then it is a dead letter. [RetryPolicy] changes that, for
// a consumer and by the error. Errors of Postgres itself (a lost connection, a deadlock) don't count: the router runs the
// transaction again and sends nothing back to the broker. A handler that ignores the end of its context is abandoned, and
// [Router.Err] names it.
//
// # Deployments
//
// The topics and types that a consumer handles are recorded when it starts. A process that receives an event of a recorded
// type without having its handler, such as an old version of the program beside a new one, parks the event, with those
// behind it in its stream, and a process that has the handler takes it within seconds. If no process has the handler any
// more the events wait, with the reason [Unhandled], until an operator retires the handler (`rocketflow redrive retire`);
// then they are settled without a handler, as are events of a type that was never recorded. A handler sees the events that
// were published after it was first registered, and perhaps some before. A consumer that is renamed is a new one: it begins
// at [ConsumerConfig].Begin, and events that are parked for the old name stay with the old name.
//
// # Parked events
//
// An event that can't be handled now is copied to the table parked and settled with the broker. It waits for its next
// attempt, for its predecessor (a gap), for a process that has its handler, behind a handler that takes long, for the end of a pause, or,
// dead, for an operator. While an event of a stream is parked, those after it are parked behind it and follow in order: a dead letter
// therefore holds its stream until an operator retries or discards it. Any process that runs the consumer takes what is due.
//
// # Pauses
//
// An operator can pause a consumer, one of its handlers or one stream (`rocketflow pause`, operate.Operator.Pause). Each turn reads in
// its transaction what is paused, after it has locked its streams, so no handler is called in a transaction that begins after the pause
// has committed, in any process. A paused consumer holds what was delivered, MaxInFlight messages at most, and takes no parked
// event. Events of a paused handler or stream are parked, and those behind them too, while others go on. After a resume, which the
// processes notice within a second, the parked ones are due and everything goes on in order. No attempt is counted. It is a state and no
// error: [Router.Paused] and Listener.Paused tell of it, and [Router.Err] doesn't.
//
// # Gaps
//
// An event that comes before its predecessor waits in memory for Config.GapWait, because neighbours swap within
// milliseconds, and is then parked and checked again after one second, two, four, up to thirty. Each time Config.Requester
// requests the missing events from the publisher, which can send them again for as long as its outbox keeps them: so an
// event that the broker lost is late, not lost. Events older than the consumer are not requested. If the consumer has no
// position in the stream and the predecessor is older than the consumer or than Config.PositionRetention, the predecessor
// will not come: such an event is accepted after Config.AdoptAfter. If the predecessor comes after all, it becomes a dead
// letter without a place in the stream, which holds back no other event. An event that is itself too old to be checked for
// duplication becomes a dead letter.
//
// After a failover in which the publisher's database lost commits, the broker may have events that no longer exist in the
// outbox, and that wait for predecessors that never come. They hold back no other event: an event all of whose predecessors
// were handled passes them, and they become dead letters without a place.
//
// # Other producers
//
// A message of a producer that doesn't use rocketflow is handled, too: a CloudEvent, in binary mode or in structured mode with
// the JSON format, by its type; any other message by its tag. One without a tag has the type [Untagged]:
//
//	router.Handle("parcels", "parcels", handlers.Untagged, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
//		p, err := handlers.Decode[Parcel](e) // the body, JSON by default
//		…
//	})
//
// A handler can rely on less: the events have no order, and those of a plain message have no source. Subject is the message's
// sharding key, or else its first key; Time is the sender's; Headers are its properties. What makes the effects happen once is
// the source and id of a CloudEvent, or else the unique key that RocketMQ's clients give a message: a producer that repeats a
// send with the same key is harmless, one that sends the same content again sends another message. Members of a batch have a
// key each. A message without a unique key is known by the place where it is stored.
//
// A type or tag without a handler is skipped, as for all events. What can't be read as an event, such as a CloudEvent without
// an id, is a dead letter that says why.
//
// # What is refused
//
// An event becomes a dead letter, with the reason, where running it would be wrong: a message that is no event; a sequence
// more than Config.MaxAhead ahead of Postgres' clock; an event with the source and id, or the place in the stream, of
// another event with other content; the event of a timeout whose handler has no fence.
//
// # How it works
//
// The broker delivers an event to its consumer, whose queue gives it to one of its lanes. A lane executes one turn after the
// other. A turn is a transaction that loads the positions and inbox rows of some events, decides about each event, runs the
// handlers of those that are next in their streams, and stores the outcome of all. Parked events that are due, and those
// that follow them, are handled in turns, too. All SQL is in package internal/inbox.
package handlers
