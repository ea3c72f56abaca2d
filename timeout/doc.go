// Package timeout provides durable timeouts: they are armed, moved and disarmed in Postgres transactions, and fire as events.
// Use it for what has to happen at a certain time if nothing else happens before: an order that isn't paid, a reminder, a
// daily job.
//
//	timeouts, err := timeout.New(timeout.Config{Pool: pool, Broker: client, Source: "orders"})
//	router.Use(timeouts.Fence) // of each router whose handlers get events of timeouts
//	err = timeouts.Start(ctx)
//
//	// In the transaction that places the order:
//	err = timeouts.Arm(ctx, tx, order.ID, "payment", placed.Add(15*time.Minute), PaymentTimedOut{OrderID: order.ID})
//	// In the transaction that records the payment:
//	armed, err := timeouts.Disarm(ctx, tx, order.ID, "payment")
//
// The event PaymentTimedOut goes to its topic when the timeout is due, and a handler handles it as any other event. Package app
// and package rocketflowfx provide a Scheduler that is wired to the other parts.
//
// # The promise
//
// A timeout fires at most once, never before its due time by the clock of Postgres, and never after the transaction that
// disarmed it committed. It also fires if the broker loses its message, is down when it is armed, accepts no timer that far
// ahead, or has no timers.
//
// A row in Postgres decides. The broker's timer message only delivers the event at about the right time: it may come late,
// twice, or for a timeout that was moved long ago. [Scheduler.Fence] stands before the handler, and admits the event only if
// the row agrees, in the handler's own transaction:
//
//  1. The fence reads, without a lock, whether the timeout is armed with the epoch that the event carries. If it isn't, the
//     event is settled without an effect. If it isn't due yet, the event is delivered again when it is. An event that names
//     another database, or none, belongs to no timeout of this service: it is an error ([ForeignError]) and a dead letter.
//  2. The handler runs.
//  3. The fence deletes the row, provided that it still carries this epoch. If it doesn't, the effects of the handler are
//     rolled back, and the event is settled ([rocketflow.ErrStale]).
//
// A handler that gets the event of a timeout without a fence before it has no effect either: package handlers makes the event a
// dead letter that names the missing fence.
//
// # Lock order
//
// The fence locks the row last, because the handler begins by locking what the timeout is about, such as an order. Code that
// disarms a timeout must lock in the same order: the aggregate first, then the timeout. In the other order the two can
// deadlock.
//
// # Hand-over
//
// After the arming transaction has committed, the scheduler hands the timeout over to the broker as a timer message if it is
// due within Config.Horizon. The sweep, which runs in every started scheduler, does the rest; the schedulers exclude each other
// row by row. It hands over the timeouts that come within the horizon, and those that were not handed over because of a crash
// or an unreachable broker. If a timeout is overdue by more than Config.SweepGrace, the sweep sends its event at once, and again
// after growing pauses until the timeout fires.
//
// # Timers of Postgres
//
// A timeout fires from Postgres if the broker has no timer for it. The scheduler then sends its event as a plain message when it
// is due. The promise is the same, and due times may be any number of years ahead. This applies to:
//
//   - all timeouts, if Config.Timers is [PostgresTimers], or if the broker has no timers: its Horizon is 0, as that of a
//     *rocketmq.Client on RocketMQ 4 (a timeout beyond a horizon that is not 0 is handed over when it comes within it);
//   - timeouts whose timer the broker rejects with an error that matches broker.ErrRejected, for example because the topic has a
//     type that excludes timers, or because the broker's timers are switched off (broker.ErrNoTimers). The scheduler logs this,
//     and requests no more timers for the topic for a minute.
//
// Where all timeouts fire from Postgres, set the kind of their topics to broker.Normal or broker.FIFO, as for other events. The
// delay levels of RocketMQ 4 are not needed, and not used.
//
// One process, which holds a lease, sleeps until the next timeout is due and then sends what is due, in groups: a thousand in a
// second are sent by it within a few hundredths of a second of their due times (BenchmarkThousandPerSecond). It learns of a
// timeout that another process armed shortly before its due time within 200 ms; a started scheduler also sends what its own
// process armed so. If the holder of the lease dies, every other started scheduler sends what is due at least every
// Config.SweepInterval, and one of them takes the lease when it expires, after 4 s or four intervals. What the dead process had
// claimed and not sent is sent after Config.SweepGrace. A process that freezes and continues sends events that have no effect.
//
// While the broker can't be reached, overdue timeouts are tried again after pauses that grow with the time that they are
// overdue, from Config.SweepInterval to Config.RetryInterval. If one broker of several is away, the events for the others are
// not held back.
//
// # Stuck timeouts
//
// A timeout stays armed as long as its event is not handled, because there is no consumer or because the event is a dead
// letter. If the event was sent ten times and the timeout is overdue for longer than Config.StuckAfter, the timeout is
// reported once to the [Listener] and in the log, and its event is sent once a day. `rocketflow inspect timeouts` shows how
// often each event was sent.
//
// # Recurring timeouts
//
// The handler of a timeout's event may arm the same timeout again: so a job recurs. The program arms the first one at each
// start with [Scheduler.ArmIfAbsent]. [Scheduler.Arm] would move a timeout that came due while the program was down, and that
// due time would be lost.
//
// # Isolation
//
// At repeatable read and serializable, the methods may return errors of Postgres after which the caller has to try the
// transaction again (SQLSTATE 40001). The scheduler's own transactions run at read committed.
//
// # What is not promised
//
// A timeout is late by the precision of the timers and by the consumer's backlog, and by the grace if the broker lost its message or if the
// process that was about to send it died. Timeouts have no order, among each other or with the events of their aggregate. One firing is for
// one consumer: the first handler that commits fires the timeout, and any other finds it stale. A handler publishes an event of its own for
// what several consumers need to know.
package timeout
