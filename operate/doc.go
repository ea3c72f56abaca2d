// Package operate is for the operators of a service: it reports on events, streams, sagas, timeouts and the backlog, retries or
// discards failed events, and repairs streams. The command rocketflow is built on it; use the package for tools of your own,
// such as an admin page or a job that retries dead letters.
//
//	operator, err := operate.New(operate.Config{Pool: pool, Schema: "order_rocketflow"})
//	if err != nil {
//		return err
//	}
//	letters, err := operator.DeadLetters(ctx, operate.ParkedFilter{Consumer: "billing"})
//	...
//	n, err := operator.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: "billing", Type: "order.closed"})
//
// An Operator works on the tables of one schema, which belongs to one service; a System reads the schemas of several services
// together. An Operator needs no running service and none of the packages outbox, handlers, saga and timeout: the processes of
// the service notice its changes within seconds.
//
// # Methods
//
// A method whose name is a noun reports, and one whose name begins with a verb changes something.
//
//	Dead letters, parked events   DeadLetters, RetryDeadLetters, RetryCarefully, EditDeadLetter, Originals,
//	                              DiscardDeadLetters, ParkedEvents
//	Streams and handlers          AcceptGap, ResetPosition, RetireHandler, Pause, Resume, Pauses
//	Rejected events               RejectedEvents, RejectedTopics, RetryRejected, RedirectRejected, DiscardRejected
//	Outbox                        Resend
//	Timeouts                      Timeouts, EndedTimeouts, FireTimeout, MoveTimeout, DisarmTimeout
//	Sagas                         Sagas, ApplyToSaga, WaitingEvents, RetryWaiting, DiscardWaiting
//	Reports                       EventStatus, SubjectStatus, Backlog, RunningSagas, Usage
//	Pages of lists                EventPage, RejectedPage, ParkedPage, DeadLetterGroups, ParkedGroups, ParkedStreams, SagaPage,
//	                              SagaTransitions, EventsOut, WaitingPage, TimeoutPage, Overview
//	Several services              System.Why, System.Reconcile, System.Watch, Reconciler
//	Audit                         Audit, RecordDenied
//	Database                      Schemas, Discover, Schema, Now
//
// Each change is recorded in the audit, in the transaction that makes it: who (WithActor, Config.Actor), when, what was selected, how many
// things were changed, their first ids, and their state before and after. Config.OnAudit gets each entry. Bodies of events are never in it.
//
// A Reconciler compares continuously what was published with what is handled; app.Config.Reconcile runs one in a service.
//
// # Filters
//
// A filter is a struct; an event is selected if it matches all fields that are set. An empty filter selects everything in a
// list. A change refuses it, because it may be empty by mistake, such as from an unset variable: set All to change
// everything. A change returns how many events it has changed, also together with an error.
//
// # Reports
//
// A report reads one consistent snapshot in a read-only transaction. It waits for no lock, its statements use indexes, and
// counts end at MaxCount, so it is safe on a database under load. A list of parked, dead or rejected events is read page by page, each
// by an index. If few of many match its filter, it reads the whole table, as one of waiting events does; a method that returns a page looks
// at a bounded number of rows instead. All types marshal to the JSON that the command prints with --json.
//
// # Errors
//
// A configuration, filter or argument that can't be used is a *rocketflow.FieldError, with the full path of the field. An
// error matches ErrUnknownEvent, ErrNoGap, ErrUnknownHandler, ErrUnknownConsumer, ErrUnknownTimeout, ErrUnknownSaga,
// ErrUnknownDeadLetter or ErrUnknownStream where there is nothing to report or to
// change, and ErrDeadLetterChanged, ErrSagaChanged or ErrEventApplied where it is not what the caller has read any more.
package operate
