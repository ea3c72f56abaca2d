// Package saga is a handler that remembers: a workflow as a state machine, one row in Postgres for each that runs, with
// typed data, a revision and a history.
//
//	d := saga.Define[Order]("order", 1).
//		Initial("awaiting_payment").
//		Deadline("awaiting_payment", "closed", payBy, releaseStock).
//		Final("paid", "closed")
//	saga.On(d, "awaiting_payment", "paid", func(ctx context.Context, tx rocketflow.Tx, o *Order, p PaymentReceived) error { … })
//	orders, err := saga.Register(engine, d)
//	…
//	err = orders.Begin(ctx, tx, order.ID, Order{…}) // in the transaction that places the order
//
// # What happens on an event
//
// The event finds its saga by its subject, or by [KeyBy]. The saga's row is locked; the transition for its state and the
// event's type runs in the handler's transaction: the function changes the data, publishes, writes what it likes; then
// state, data, revision and one row of history are written. So a transition has its effect once, with all that its
// function did in tx, or not at all. If the function returns an error, it means what it means from any handler: the event
// is tried again, or becomes a dead letter, and the events of its stream wait behind it.
//
// # Early events
//
// With several sources of events, one may come before its turn: the payment before the stock is reserved. An event that
// the present state doesn't take, but a state takes that can be reached from it, waits. It waits in a table of the sagas'
// own, not with its consumer, so that it doesn't hold up its stream: what the saga needs first may be behind it. Each
// transition, each beginning and each deadline looks in its own transaction for waiting events that the new state takes,
// and applies them in order of arrival, one after the other, until none fits; each is a transition of its own, with its own
// row of history. [EventFrom] tells a function which event it is called for.
//
//   - An event waits for at most Config.WaitLimit (7 days), or as long as [Wait] says for its type. Then it has expired: it
//     is not applied any more, the [Listener] and the log tell of it, and it stays visible.
//   - An event for a key without a saga waits too, for Config.UnbegunLimit (24 hours): its saga may begin in a transaction
//     that has not committed yet. Where most events of a type have no saga, let [KeyBy] give no key for those, or turn the
//     waiting off with [Wait].
//   - If the function of a waiting event fails, the transition before it stands. The event is tried again at growing
//     intervals, Config.WaitAttempts times (about a day); then it has failed, and stays visible. Later events of its stream
//     stay behind it meanwhile. What fails only when the transaction commits, such as a deferred constraint, fails the
//     whole transaction.
//   - Expired and failed events are listed by operate.Operator.WaitingEvents and by `rocketflow inspect saga`. An operator retries or
//     discards them (`rocketflow saga retry`, `rocketflow saga discard`). After Config.Retention they are deleted, and the log
//     says so.
//
// What no state takes that can still be reached is ignored and reported to the Listener: an event for a finished saga, or
// one that waits when the saga comes to a state from which no way leads to its use. It is no error: a late event is normal.
//
// A waiting event is handled as far as its consumer is concerned. Middleware of the router sees it when it comes, not when
// it is applied.
//
// # How a saga begins
//
// [Saga.Begin] begins one in the caller's transaction: that of a request, or of a handler of whatever consumer. A saga is
// a consumer of its own, and may get an event before the transaction that begins it has committed; such an event waits and
// is applied right after. [StartOn] names an event that begins a saga; then no other handler is needed, and it has the
// place in its stream that the events behind it expect. After a finished saga has been deleted by retention, a copy of the
// event would begin it anew; keep sagas longer than events come again.
//
// # Several sagas
//
// Each saga is a consumer of its own, with the name Config.Consumer + "-" + the saga's name ("." becomes "_"). So sagas that
// hear the same event decide each for itself alone: one's error, Discard or ErrStale is nothing to the others. The price
// is one consumer group for each saga, and one record of each event for each saga that hears its topic. Renaming a saga,
// or Config.Consumer, makes a new consumer.
//
// # Deadlines
//
// Every state that waits says how long ([Definition.Deadline]) or that it may wait for ever ([Definition.NoDeadline]).
// The timeout is armed on entering the state and disarmed on leaving it, in the same transaction, so a deadline never
// acts on a state that was left. A transition to the same state stays: the deadline stands. A deadline that leads back to
// its own state is armed again.
//
// # Locks
//
// A transition takes the saga's row first, then what its function takes, then the timeout. Application code that calls
// [Saga.Begin] or [Saga.Apply] does well to do it before it locks rows that the functions use. Waiting events are locked
// after the row of their saga.
//
// # Versions
//
// A saga stays on the version of the definition that it began on. An engine knows one version of each name today. It does
// not start beside sagas that run in a version or a state which its definition doesn't have ([UnknownSagasError] names
// them): they would never end. An event that meets such a saga all the same, because another process runs another version
// of the program, fails and waits ([VersionError], [UnknownStateError]). Sagas of a name that nobody registered are told of
// in the log. The data is stored as JSON: new fields need no new version, what changes the meaning of a state does.
//
// # Isolation
//
// Sagas work at every isolation of the database. At repeatable read and serializable, [Saga.Begin] and [Saga.Apply] may
// return errors of Postgres that ask for the transaction to be tried again (SQLSTATE 40001), and an event that waits may be
// applied a second later than at read committed.
//
// # Retention
//
// A finished saga and its history are deleted after Config.Retention by any engine that is started, by Postgres' clock.
package saga
