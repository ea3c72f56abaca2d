// Package outbox publishes events in Postgres transactions: an event becomes visible to consumers if and only if the
// transaction that published it commits, whatever process dies at whatever step. Use it where a service changes its
// database and others must learn of it.
//
//	box, err := outbox.New(outbox.Config{Pool: pool, Broker: client, Source: "orders"}) // client: *rocketmq.Client
//	...
//	err = box.Start(ctx)
//	...
//	err = box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { // tx is a pgx.Tx
//		if _, err := tx.Exec(ctx, "UPDATE orders SET state = 'placed' WHERE id = $1", id); err != nil {
//			return err
//		}
//		return tx.Publish(ctx, OrderPlaced{ID: id})
//	})
//
// Join and JoinSQL publish in transactions that the application has begun itself, with pgx, database/sql, sqlx or GORM.
//
// # How it works
//
// There are two tables whose rows are written once. A row of outbox is an event that a transaction published, inserted in
// that transaction. A row of outbox_ack is an acknowledgement: the broker has the event. An event is owed while its row is
// visible and has no acknowledgement. Half messages and the relay send events soon after the commit; the sweep, a periodic
// search for owed events, makes sure that all are sent. So an event may be sent twice, which the inbox of package handlers
// absorbs, but it is never lost.
//
// # When a process dies
//
// Commit takes these steps. The table says what is left if the process, the broker's connection or the machine ends right
// after each, and what becomes of the event.
//
//	step                              | left behind                | then
//	----------------------------------+----------------------------+------------------------------------------------
//	1 rows recorded, not committed    | nothing: Postgres rolls    | never sent
//	                                  | back                       |
//	2 half message stored             | a half message without a   | a check-back finds no row: unknown while the
//	                                  | row                        | transaction may be open, then rollback: never sent
//	3 COMMIT sent, response lost      | a half message; a row or   | nothing is ended. A check-back finds the row: commit.
//	                                  | none                       | Or no row: as 2. The sweep covers for the check-back
//	4 committed                       | a half message and a row   | whichever comes first: a check-back commits it, or
//	                                  | without acknowledgement    | the sweep sends it after its grace
//	5 half message ended, no response | a row without              | the relay, or the sweep, sends it: perhaps twice
//	                                  | acknowledgement; perhaps   |
//	                                  | it was sent                |
//	6 ended, acknowledgement not      | a row without              | the sweep sends it again: twice. A check-back that
//	  written                         | acknowledgement; it was    | the broker repeats may do so too
//	                                  | sent                       |
//	7 acknowledgement written         | nothing                    | sent; a repeated check-back is decided with rollback
//
// On the relay path there are steps 3, 4, 6 and 7, without the half message: rows and COMMIT are one round trip, so a
// process that dies before it leaves nothing. A group that the relay sent without a response is step 5 for each of its
// events, and one that waits in memory is step 4.
//
// A half message that the broker loses, or gives up after too many check-backs, leaves a row without acknowledgement for the
// sweep. So does a transaction that commits an hour after its half message was rolled back: the sweep's watermark waits for
// open transactions.
//
// Four things carry the promise: a half message is committed only for a row that is known to be committed; nothing is ended
// after a COMMIT whose response was lost; the sweep exists; its watermark waits for open transactions. Everything else
// serves speed and avoids duplicates.
//
// test/model is a model of this protocol in TLA+ that TLC checks exhaustively: an action for each row, and a counter-example
// for each of the four when it is removed.
//
// # When it is unknown whether a transaction committed
//
// The connection to Postgres may be lost after COMMIT was sent. Then the error of Commit and Within matches
// rocketflow.ErrCommitUnknown, and Listener.RolledBack is called with unknown set. Any other error means that the
// transaction is not committed, and nil that it is. In each case its events are sent if and only if it is committed.
//
// # Joined and nested transactions
//
// A rollback to a savepoint discards the events that were published in it, and its functions of AfterCommit. Savepoints of
// tx.Begin are followed in memory. Where something else may roll back a part (the owner of a joined transaction, a savepoint
// in SQL, a connection that Conn has handed out), Publish inserts the rows at once and each function leaves a marker in a
// setting of the transaction; the rows and markers that are left right before the commit decide.
//
// nil from the Commit of a joined transaction doesn't prove that it is committed: Commit may have released a savepoint. So no
// half message is prepared for its events. After the commit their rows are looked up by another connection, and the relay
// gets the events that are found. The others are step 3 of the table: the sweep sends them if they are ever committed.
//
// # Functions of the application
//
// Functions of AfterCommit and of the listener run in goroutines of their own, and the caller waits for them. A function that
// panics, or calls runtime.Goexit, is logged as an error and changes nothing else.
//
// # Paths
//
// The path of all events of a transaction is chosen before it commits, without waiting. The half-message path has the lowest
// latency and costs the broker two requests for each event. The relay path costs it a fraction of a request and has the
// higher throughput. With Auto a transaction takes the half-message path while at most Config.MaxHalfMessages events are in
// flight, its own included: those of transactions in Commit, those of half messages whose end the broker has not confirmed,
// and those in requests of the relay. It takes the relay path if more are in flight, or if the relay holds an event of the
// same stream.
//
// It also takes the relay path if it publishes to a hot stream, one whose transactions wait for each other's row locks: each
// would wait for the half messages of all transactions before it. A stream is hot for a tenth of a second when two open
// transactions of this process have published to it, or when its transactions follow each other within 5 ms while others
// are open. Transactions of other processes are noticed by the stream's sequences, which are times.
//
// All transactions take the relay path while the circuit breaker is open. It opens after three failures in a row, or when
// half of many transactions fail; failures are errors (but not rejections) and responses later than HalfTimeout. Until it
// opens at most MaxHalfMessages transactions at a time wait for a broker that doesn't respond; after that one or two that
// probe it every two seconds. A caller's own deadline is respected: half of the time that is left is reserved for the
// commit.
//
// The relay sends in one request the events that have gathered for a queue during the request before and for at least
// Config.RelayPace; after a pause the first event is sent at once. So groups grow with the load. A stream has one request in
// flight at a time.
//
// # Round trips
//
// BEGIN is sent with the transaction's first Exec, QueryRow or SendBatch, and on the relay path COMMIT is sent with the rows.
// A transaction with savepoints, large objects, or a begin or commit statement in its options sends them separately.
//
// # Order
//
// The stream of an event is (source, topic, subject). Its sequence is taken under a row lock that is held until the
// commit, so sequences follow the commits; Previous links it to the event before. Consumers check the link and don't rely on
// the order of the queue: half messages of neighbouring transactions may be committed in the other order.
//
// # When the broker is away
//
// Business transactions commit, and their events are owed, until MaxBacklog is reached. Then Publish returns a
// *rocketflow.BackpressureError before anything is written. One process sweeps; its state, the last count and its progress,
// is one row that all processes read once in SweepInterval. So each process has the backlog without counting: exactly up to
// a page, beyond that without some events of the last second or two. When the broker is back the sweep sends at most
// DrainRate events a second. Events of a process that died are sent within SweepGrace and twice SweepInterval, events that
// a live process could not send within SweepInterval. A pass reads only rows that it hasn't read before and those that it
// must read again, however long a transaction is open and however much can't be sent.
//
// One process at a time sweeps, by a lease: a row that expires by Postgres' clock. A process that freezes, or is cut off,
// during a pass holds the lease for at most 10 s, or three times SweepInterval if that is longer. When it goes on it may
// sweep beside the next one for a moment; then both send the same events, which costs duplicates and no more:
// acknowledgements are inserted once, and the sweep's progress is written by the holder of the lease alone.
//
// Memory is bounded by bytes: the relay holds Config.RelayBytes of bodies, the sweep reads 8 MiB of them at a time. Committed
// events that don't fit into the relay are remembered by id, read back from Postgres when there is room, and sent in order:
// a transaction of ten thousand events doesn't wait for the sweep.
//
// # What the broker rejects
//
// The broker rejects an event if its topic doesn't exist, a right is missing, or it is too large. Rejections are recorded in
// a table, and the events stay owed. The sweep's passes skip them, and they don't count against MaxBacklog. They are
// retried after pauses that double up to a minute; where the reason concerns the whole topic, with one event of it. When
// more than Config.MaxRejected events of a topic are rejected, Publish refuses events of that topic with a
// *rocketflow.BackpressureError that names the topic and the reason; other topics are not affected. Rejected and
// Listener.Rejected report rejections, and each topic and reason is logged once. Operators list, retry, redirect or discard
// such events with `rocketflow owed`. With Config.Topics a typo in a topic is an error of Publish.
//
// # When Postgres takes no writes
//
// On a demoted primary, a server that is set to read only, or a full disk, events that could not be acknowledged aren't sent.
// The sweep pauses while the server is read only. While acknowledgements fail it sends no further events until those of sent
// events are written.
//
// # What it costs others
//
// A transaction on the half-message path waits in Commit for its half messages, at most HalfTimeout, with the rows of its
// streams locked. It never fails because of the broker, except for a message that the broker will never accept (too large).
// Only rows of streams are updated, so a long transaction elsewhere doesn't slow the outbox down.
//
// Tables are partitioned by the day of the event's id; partitions are made a week ahead. Ids follow Config.Clock; Postgres'
// clock decides which partitions are made and dropped. A process whose clock differs by more than a minute warns. If a day
// has no partition, the default partition takes its rows.
//
// # What the broker lost
//
// An event that the broker confirmed and lost is acknowledged, so the outbox doesn't send it again by itself. A consumer that
// sees the gap in a stream sends a missing-events request to rocketflow.MissingEventsTopic, and one process of the source
// sends again what it still has: at most Config.ResendLimit events and Config.ResendBytes for a request, and
// Config.ResendRate events a second. A process accepts 300 requests a second, 100 of one requester, and one of a requester
// for a stream, with bursts; a requester is sent Config.ResendBytes a second, all requesters four times as many. Refused
// requests are counted, and consumers repeat them for as long as events are missing. If that topic doesn't exist, gaps
// remain. The loss of the last event of a stream, or of one without order, leaves no gap: `rocketflow resend` is for that.
//
// A service that publishes needs the right to subscribe to that topic with the group Config.Group + "_resend"; one that
// consumes needs the right to publish to it. That right allows making a publisher send events again, and nothing else:
// see docs/security.md.
//
// # Retention
//
// Acknowledged events are kept for Config.Retention, in whole days, and dropped by any process; a day with an owed event
// stays. The last sequence of an idle stream is kept for Config.StreamRetention, and while an event of it is: so a gap is
// noticed for as long as it can be filled. After that the stream begins anew, above its old sequence even if the clock was
// set back. A partition is only dropped when no transaction has used the table for a moment: one that published and stays
// open delays it. Entries of the schema's audit are kept for Config.AuditRetention, what became of timeouts
// for Config.TimeoutHistoryRetention.
//
// Nothing depends on a session, so a pooler in transaction mode works. pgx must not keep prepared statements then, unless the
// pooler supports them: set default_query_exec_mode=cache_describe or exec.
package outbox
