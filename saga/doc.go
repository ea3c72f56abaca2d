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
// function did in tx, or not at all. What doesn't fit is ignored and reported to the [Listener]: an event for a key
// without a saga, for a finished saga, or without a transition from the present state. It is no error: with several
// sources of events a late one is normal.
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
// [Saga.Begin] or [Saga.Apply] does well to do it before it locks rows that the functions use. Of several sagas that hear
// one event, the one whose name comes first goes first.
//
// # Versions
//
// A saga stays on the version of the definition that it began on. An engine knows one version of each name today; an
// instance of another gives a [VersionError], so that its events wait as failed rather than take a wrong turn. The data
// is stored as JSON: new fields need no new version, what changes the meaning of a state does.
//
// # Retention
//
// A finished saga and its history are deleted after [Config].Retention by any engine that is started.
package saga
