// Package handlers is the read side: it gives events to handlers so that each has its effect once and the events of an
// aggregate take effect in order.
//
//	router, err := handlers.New(handlers.Config{Pool: pool, Transactor: outbox, Broker: client})
//	handlers.On(router, "billing", func(ctx context.Context, tx rocketflow.Tx, e OrderPlaced) error { … })
//	err = router.Start(ctx)
//
// # What a handler may rely on
//
//   - Its effects in tx happen once for each event and consumer, whatever is delivered twice and whatever process dies:
//     the record that the event was handled commits in the same transaction. What it does elsewhere may be repeated.
//   - It sees the events of one stream (source, topic, subject) in the order of their commits, without gaps, one at a
//     time, across all processes. This rests on Postgres alone: a row of position, locked while a handler runs, and the
//     link from each event to its predecessor. Queues and rebalances of the broker only make it cheap.
//   - A failing event holds back its own stream, or only itself if it has no order. All else flows on.
//   - Events without order run as they come, side by side.
//
// Several events may share a transaction: what has gathered in a lane runs in one, and one by one after a failure, so a
// handler that fails may be called twice in a row. The transaction must be left usable and uncommitted.
//
// # What a handler returns
//
// nil commits. [Discard] and rocketflow.ErrStale undo its effects and settle the event. [RetryAfter] asks for the event
// again later without counting an attempt. [Dead], and rocketflow.ErrUndecodable, make it a dead letter at once. Any
// other error, a panic, and a passed deadline count an attempt: the event is parked and tried again with exponential
// backoff; after the last attempt it is a dead letter. Errors of Postgres itself (a lost connection, a deadlock) count
// nothing: the router tries again by itself and sends nothing back to the broker.
//
// # Parked events
//
// An event that can't be handled now is copied to the table parked and settled with the broker. It waits for its next
// attempt, for its predecessor (a gap), or, dead, for a person. While an event of a stream is parked, those after it
// are parked behind it and follow in order: a dead letter therefore holds its stream until [DeadLetters] retries or
// discards it. Any process that runs the consumer takes what is due.
//
// # Gaps
//
// An event that comes before its predecessor waits in memory for Config.GapWait, because neighbours swap within
// milliseconds, and is then parked and looked at again after one second, two, four, up to thirty. Each time the publisher is
// asked, by Config.Refill, to send again what is missing, which it can for as long as its outbox keeps it: an event that
// the broker lost is late, then, not lost. What is older than the consumer is not asked for. If the consumer has
// never seen the stream and the predecessor is older than the consumer or than Config.PositionRetention, it will not
// come: such an event is accepted after Config.AdoptAfter. Should the predecessor come after all, it becomes a dead
// letter without a place in the stream: neither is it lost in silence, nor does it hold anyone. An event that is itself
// too old to be checked for duplication becomes a dead letter.
//
// Locks are taken in one order: positions by key, then the inbox by id, then parked rows of the streams whose positions
// are held.
package handlers
