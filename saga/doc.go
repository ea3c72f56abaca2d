// Package saga runs workflows that span several events and services as state machines in Postgres. Use it when one handler
// isn't enough: when a step depends on what happened before, or has to happen by a deadline.
//
//	d := saga.Define[Order]("order", 1).
//		Initial("awaiting_payment").
//		Deadline("awaiting_payment", "closed", payBy, releaseStock). // func(*Order) time.Time; func(ctx, tx, *Order) error
//		Final("paid", "closed")
//	saga.On(d, "awaiting_payment", "paid",
//		func(ctx context.Context, tx rocketflow.Tx, o *Order, p PaymentReceived) error {
//			return tx.Publish(ctx, OrderConfirmed{OrderID: o.ID})
//		})
//	engine, err := saga.New(saga.Config{
//		Pool: pool, Router: router, Transactor: box, Consumer: "orders", Timer: timeouts, TimeoutTopic: "order-timeouts",
//	})
//	orders, err := saga.Register(engine, d)
//	err = engine.Start(ctx) // before the router
//
//	err = orders.Begin(ctx, tx, order.ID, Order{ID: order.ID}) // in the transaction that places the order
//
// A saga is one row: its state, its data as JSON, a revision, and a history of its transitions. Package app and package
// rocketflowfx provide an Engine that is wired to the other parts.
//
// # Transitions
//
// An event finds its saga by its subject, or by [KeyBy]. The engine locks the saga's row and runs the function of the
// transition for the saga's state and the event's type, in the transaction of the event's handler. The function changes the
// data, publishes events, and writes to other tables. Then the engine stores the state, the data and one row of history. So a
// transition takes effect once, with everything that its function did in tx, or not at all. If the function returns an error,
// the error has the meaning that it has for any handler: the event is tried again, or becomes a dead letter, and the later
// events of its stream wait behind it.
//
// # Waiting events
//
// If a workflow gets events from several sources, an event may come too early: the payment before the stock is reserved. An
// event that the saga's state doesn't accept, but that a state accepts which can be reached from it, waits. It waits in a
// table of its own, and its consumer has handled it, so it doesn't hold back its stream: the event that the saga needs first
// may be behind it. Each transition, each beginning and each deadline applies, in its own transaction, the waiting events that
// the new state accepts, one after the other in order of arrival. Each is a transition of its own with its own row of history.
// [EventFrom] returns the event for which a function is called.
//
//   - An event waits for at most Config.WaitLimit (7 days), or as long as [Wait] says for its type. Then it has expired: it is
//     not applied any more, it is reported to the [Listener] and in the log, and it stays visible.
//   - An event for a key without a saga waits for Config.UnbegunLimit (24 hours), because its saga may begin in a transaction
//     that has not committed yet. If most events of a type belong to no saga, let [KeyBy] return an empty key for those, or
//     disable the wait with [Wait].
//   - If the function of a waiting event fails, the transition before it stands. The event is tried again after growing pauses,
//     up to Config.WaitAttempts times, which takes about a day. Then it has failed, and stays visible. Later events of its
//     stream wait behind it meanwhile. A conflict with another transaction (a deadlock, a serialization failure, a lock_timeout)
//     and an outage of Postgres count no attempt. An error at the commit, such as that of a deferred constraint, fails the whole
//     transaction.
//   - An operator lists expired and failed events with `rocketflow inspect saga`, and retries or discards them with `rocketflow
//     saga retry` and `rocketflow saga discard`. They are deleted after Config.Retention, which is logged.
//
// An event that no reachable state accepts is ignored and reported to the Listener: an event for a finished saga, for example,
// or one that waits when the saga enters a state from which no path leads to its use. That is no error: late events are
// normal.
//
// For its consumer, a waiting event is handled. The router's middleware runs when the event arrives, not when it is applied.
//
// # How a saga begins
//
// [Saga.Begin] begins a saga in the caller's transaction: that of a request, or of the handler of any consumer. An event may
// reach the saga's consumer before that transaction has committed; the event waits and is applied right after the commit.
// [StartOn] names an event that begins a saga, so that no other handler is needed. After retention has deleted a finished saga,
// a copy of the event would begin it again: choose a Retention longer than the time in which events may come again.
//
// # Consumers
//
// Each saga is a consumer of its own, named Config.Consumer + "-" + the saga's name (with "." replaced by "_"). If two sagas
// handle the same event, an error, a Discard or an ErrStale of one has no effect on the other. The cost is one consumer group
// for each saga, and one record of each event for each saga that reads its topic. If a saga or Config.Consumer is renamed, it
// becomes a new consumer.
//
// # Deadlines
//
// Every state that is not final declares how long a saga stays in it ([Definition.Deadline]), or that it may stay for ever
// ([Definition.NoDeadline]). The engine arms the timeout in the transaction that enters the state, and disarms it in the one
// that leaves it, so a deadline never acts on a state that was left. A transition to the same state keeps the deadline; a
// deadline that leads back to its own state is armed again.
//
// # Lock order
//
// A transition locks the saga's row first, then what its function locks, then the timeout. Code that calls [Saga.Begin] or
// [Saga.Apply] should call it before it locks rows that the functions use, to avoid deadlocks. Waiting events are locked after
// the row of their saga.
//
// # Versions
//
// A saga stays on the version of the definition that it began on. An engine has one version of each definition. It doesn't
// start while sagas run in a version or state that its definition doesn't have ([UnknownSagasError] lists them): they would
// never end. If another process runs another version of the program, an event for such a saga fails and is tried again
// ([VersionError], [UnknownStateError]). Running sagas without a registered definition are logged as a warning. The data is
// stored as JSON: a new field needs no new version; another meaning of a state does.
//
// # Isolation
//
// Sagas work at every isolation level. At repeatable read and serializable, [Saga.Begin] and [Saga.Apply] may return errors of
// Postgres after which the caller has to try the transaction again (SQLSTATE 40001), and a waiting event may be applied a
// second later than at read committed.
//
// # Retention
//
// Any started engine deletes finished sagas with their history after Config.Retention, by the clock of Postgres.
package saga
