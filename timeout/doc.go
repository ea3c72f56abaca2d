// Package timeout is durable alarms: armed, moved and disarmed in a Postgres transaction, fired as an event.
//
//	err := timeouts.Arm(ctx, tx, order.ID, "payment", placed.Add(15*time.Minute), PaymentTimedOut{OrderID: order.ID})
//	...
//	was, err := timeouts.Disarm(ctx, tx, order.ID, "payment") // in the transaction that records the payment
//
// # The promise
//
// A timeout fires at most once, never before its time by the clock of Postgres, and never after the transaction that
// disarmed it committed. It fires even if the broker loses its message, or was away when it was armed, or is told of it
// months ahead.
//
// The row in Postgres is the truth. The broker's timer message is only a wake-up that carries the event: it may come
// late, twice, or for a timeout that has long been moved. [Scheduler.Fence] stands before the handler and lets the event
// through only if the row still says so, in the handler's own transaction:
//
//  1. It looks, without a lock, whether the timeout is armed with the epoch that the event carries. If not, the event is
//     settled and nothing happens. If it is too early, the event comes again when it is due. An event that names another
//     database than this one, or none, is no firing of our timeouts: it is an error ([ForeignError]), and a dead letter.
//  2. The handler runs.
//  3. The row is deleted, provided that it still carries this epoch. If it doesn't, what the handler did is rolled back
//     and the event is settled ([rocketflow.ErrStale]).
//
// # Lock order
//
// The row goes last, because the handler begins by locking what the timeout is about (an order, say). Whoever disarms
// does it in the same order: touch the aggregate first, then disarm. The other way round, the two can deadlock.
//
// # How it goes out
//
// Right after the arming transaction commits, the scheduler hands the timeout to the broker if it is due within the
// horizon. All else is the sweep's, which every running scheduler does, in turns that exclude each other row by row:
// what lies beyond the horizon when it comes within, what a crash or an absent broker left, and, once a timeout is
// overdue by more than the grace, what the broker lost: that is sent at once, and again ever more rarely until it fires.
//
// # Stuck
//
// A timeout whose event nobody handles, for want of a consumer or because the event is a dead letter, is never deleted. Once
// it has been sent ten times and is overdue for longer than Config.StuckAfter, it is reported once, by the [Listener] and
// in the log, and sent once a day from then on. `rocketflow inspect timeouts` shows how often each was sent.
//
// # Recurring jobs
//
// A handler may arm the timeout anew whose firing it handles: that is how a job recurs. Who arms the first one at each
// start of the program uses [Scheduler.ArmIfAbsent]. [Scheduler.Arm] would move a timeout that is overdue, because the
// program was down, into the future, and what was due would never happen.
//
// # Isolation
//
// At repeatable read and serializable, the calls may return errors of Postgres that ask for the transaction to be tried
// again (SQLSTATE 40001). What the scheduler does by itself it does at read committed, whatever the database's default is.
//
// # What is not promised
//
// Punctuality: a timeout is late by the broker's precision, the consumer's backlog, and by the grace where the broker
// lost it. Order: timeouts have none, among each other or with the events of their aggregate. And one firing is for one
// consumer: whose handler commits first has it, any other finds the timeout gone. What several need to know, the handler
// publishes.
package timeout
