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
//     process dies: the record that the event was handled commits in the same transaction. What it does elsewhere may be
//     repeated, see below.
//   - It sees the events of one stream (source, topic, subject) in the order of their commits, without gaps, one at a
//     time, across all processes. This rests on Postgres alone: a row of the table position, made before the first event
//     runs and locked while a handler runs, and the link from each event to its predecessor. Queues and rebalances of the
//     broker only make it cheap.
//   - A failing event holds back its own stream, or only itself if it has no order. All else flows on, also while a handler
//     takes long: what comes behind it moves to Postgres once it would take the room of others.
//   - Events without order run as they come, side by side.
//
// # What may run twice
//
// Several events may share a transaction, up to ConsumerConfig.BatchSize. When a handler fails, the transaction rolls
// back: the handlers of the events before it run once more, in a transaction without it; the one that failed runs once
// more alone, unless its error says what becomes of the event; those behind it have not run yet. So a call to another
// system may be repeated for neighbours of a failing event, as it may after a crash, a deadlock or a lost connection.
// BatchSize 1 gives each event a transaction of its own. A Stop lets the handlers that run return and commits what ran. A
// handler must leave the transaction usable and must not end it.
//
// A lane begins with batches of a few events. Each success doubles its batch up to BatchSize; a failing event, a deadlock
// and a serialization failure halve it, and after deadlocks it grows ever more slowly. So handlers that lock rows in
// different orders need no setting.
//
// # What a handler returns
//
// nil commits. [Discard] and rocketflow.ErrStale undo its effects and settle the event. [RetryAfter] requests the event
// again later without counting an attempt. [Dead], and rocketflow.ErrUndecodable, make it a dead letter at once. Any other
// error, a panic, an end of its goroutine and a passed deadline count an attempt: the event is parked and tried again with
// exponential backoff, by default for about a day; then it is a dead letter. [RetryPolicy] changes that, for a consumer and
// by the error. Errors of Postgres itself (a lost connection, a deadlock) count nothing: the router tries again by itself and
// sends nothing back to the broker. A handler that ignores the end of its context is abandoned, and [Router.Err] names it.
//
// # Deployments
//
// What a consumer handles is recorded when it starts. A process that meets a recorded type without having its handler, an
// old version beside a new one or the other way round, parks the event, with what is behind it in its stream, and a process
// that has the handler takes it within seconds. If no process has it any more the events wait, with the reason
// [Unhandled], until an operator retires the handler (`rocketflow redrive retire`); they are stepped over then, and so is a
// type that was never recorded. A handler sees the events that were published after it was first registered, and perhaps
// some before. A consumer that is renamed is a new one: it begins where [ConsumerConfig].Begin says, and what waited for the
// old name stays with the old name.
//
// # Parked events
//
// An event that can't be handled now is copied to the table parked and settled with the broker. It waits for its next
// attempt, for its predecessor (a gap), for a process that has its handler, behind a handler that takes long, or, dead, for
// an operator. While an event of a stream is parked, those after it are parked behind it and follow in order: a dead letter
// therefore holds its stream until an operator retries or discards it. Any process that runs the consumer takes what is due.
//
// # Gaps
//
// An event that comes before its predecessor waits in memory for Config.GapWait, because neighbours swap within
// milliseconds, and is then parked and looked at again after one second, two, four, up to thirty. Each time Config.Requester
// requests from the publisher what is missing, which it can send again for as long as its outbox keeps it: an event that
// the broker lost is late, then, not lost. What is older than the consumer is not requested. If the consumer has
// never seen the stream and the predecessor is older than the consumer or than Config.PositionRetention, it will not
// come: such an event is accepted after Config.AdoptAfter. Should the predecessor come after all, it becomes a dead
// letter without a place in the stream: neither is it lost in silence, nor does it hold anyone. An event that is itself
// too old to be checked for duplication becomes a dead letter.
//
// After a failover that lost commits of the publisher, events may be at the broker that no longer exist, and wait for
// predecessors that never will be. They hold nobody: an event all of whose predecessors were handled passes them, and they
// become dead letters without a place.
//
// # What is refused
//
// An event becomes a dead letter, with the reason, where running it would be wrong: a message that is no event; a sequence
// more than Config.MaxAhead ahead of Postgres' clock; another content under the source and id, or in the place, of an event
// that is known; the event of a timeout whose handler has no fence.
//
// # How it works
//
// The broker delivers an event to its consumer, whose queue gives it to one of its lanes. A lane makes one turn after the
// other: a transaction that loads what is known of some events, decides about each, runs the handlers of those whose turn
// has come, and stores what became of all. Events that were parked and are due, and those that follow them, take the same
// way. All SQL is in package internal/inbox.
package handlers
