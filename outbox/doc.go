// Package outbox publishes events from Postgres transactions: an event becomes visible if and only if the transaction
// that published it commits, whatever process dies at whatever step.
//
//	err := box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
//		if _, err := tx.Exec(ctx, "UPDATE orders SET ..."); err != nil {
//			return err
//		}
//		return tx.Publish(ctx, OrderPlaced{...})
//	})
//
// # How
//
// Two tables, written once: outbox holds what was promised, in the business transaction; outbox_ack what the broker
// confirmed. An event is owed while its row is visible and has no ack. A half message (gear A) is the fast way to pay,
// the relay (gear B) the way when no half message could be had, and the sweep over what is owed makes it certain. So an
// event may go out twice, which the inbox of package handlers absorbs, but is never lost.
//
// # When a process dies
//
// Commit takes these steps; the table says what is left if the process, the broker's connection or the machine ends
// right after each, and what becomes of the event.
//
//	step                              | left behind                | then
//	----------------------------------+----------------------------+------------------------------------------------
//	1 rows recorded, not committed    | nothing: Postgres rolls    | never out
//	                                  | back                       |
//	2 half message stored             | a half message without a   | a check finds no row: unknown while the
//	                                  | row                        | transaction may be open, then rollback: never out
//	3 COMMIT sent, answer lost        | a half message; a row or   | nothing is ended. A check finds the row: commit.
//	                                  | none                       | Or no row: as 2. The sweep covers for the check
//	4 committed                       | a half message and a row   | whichever comes first: a check commits it, or the
//	                                  | without ack                | sweep sends it after its grace
//	5 half message ended, no answer   | a row without ack; perhaps | the relay, or the sweep, sends it: perhaps twice
//	                                  | it is out                  |
//	6 ended, ack not written          | a row without ack; it is   | the sweep sends it again: twice. A check that the
//	                                  | out                        | broker repeats may do so too
//	7 ack written                     | nothing                    | out; a repeated check is answered with rollback
//
// With the relay instead of a half message there are steps 3, 4, 6 and 7, without the half message: rows and COMMIT are
// one round trip, so what dies before it leaves nothing. A group that the relay sent without an answer is step 5 for each
// of its events, and one that waits in memory is step 4.
//
// A half message that the broker loses or gives up after too many checks leaves a row without ack: the sweep. A transaction
// that commits an hour after its half message was rolled back: the sweep; its mark waits for open transactions.
//
// Four things carry this: a commit is sent only for a row known to be committed; nothing is ended after a COMMIT whose
// answer was lost; the sweep exists; its mark waits for open transactions. All else is speed and fewer doubles.
//
// test/model has all this as a model in TLA+ that TLC checks exhaustively: an action for each row, and a counter-example
// for each of the four when it is taken away.
//
// # Joined and nested transactions
//
// What a savepoint takes back takes its events with it, and its functions of AfterCommit. Savepoints of tx.Begin are
// followed in memory. Where something else may roll back a part (a transaction that another has begun, a savepoint in SQL,
// a connection that was handed out by Conn), rows are written by Publish itself, functions leave a mark in a setting of the
// transaction, and what is left of both before the commit decides.
//
// nil from the Commit of a joined transaction proves nothing: it may have released a savepoint. So no half message is
// prepared for its events, their rows are looked up by another connection after the commit, and those that are found go to
// the relay. The others are step 3 of the table: nothing is done, and the sweep sends them should they ever be committed.
//
// # Functions of the application
//
// Functions of AfterCommit and of the listener run in goroutines of their own, and are waited for. One that panics, or
// calls runtime.Goexit, is logged as an error and changes nothing.
//
// # Gears
//
// A transaction decides before it commits how all its events go, and never waits for the decision. Half messages cost the
// broker two requests an event and are the quickest at rest; groups cost it a fraction of one and carry more. So a
// transaction takes half messages while at most Config.MaxHalfMessages events are on their way, its own included: those of
// transactions that commit, those of half messages until the broker has answered their ends, and those that the relay is
// about to send. Whoever finds more, or an event of the same stream with the relay, takes the relay at once.
//
// So does who publishes to a hot stream, one whose transactions wait for each other's row locks: each would wait for the
// half messages of all before it. A stream is hot for a tenth of a second when two open transactions of this process have
// published to it, or when its transactions follow each other within 5 ms while others are open; what other processes do
// shows in its sequences, which are times.
//
// So does everybody while the breaker is open: three failures in a row, or half of many, that is, errors and answers
// later than HalfTimeout (what the broker rejects is an answer). Until it opens, at most MaxHalfMessages transactions at a time
// wait for a broker that doesn't answer, and then, every two seconds, one or two that probe. A caller's own deadline is
// respected: half of what is left is kept for the commit.
//
// The relay sends what has gathered for a queue while its earlier request was on its way, and for Config.RelayPace at
// least; the first after a pause goes at once. So groups grow with the load. A stream has one request in flight at a time.
//
// # Round trips
//
// BEGIN goes with the transaction's first Exec, QueryRow or SendBatch, and with the relay COMMIT goes with the rows. A
// failure in that last round trip is one of three: Postgres refused (its error says so), nothing was sent, or nobody
// knows: then the error matches rocketflow.ErrCommitUnknown. A transaction with savepoints, large objects or a begin or
// commit statement of its own sends them separately.
//
// # Order
//
// The stream of an event is (source, topic, subject). Its sequence is taken under a row lock that is held until the
// commit, so it follows the commits; Previous links it to the event before. Consumers check the link and assume nothing
// of the queue: ends of neighbouring transactions may swap.
//
// # When the broker is away
//
// Business transactions commit, and their events are owed, until MaxBacklog is reached; then Publish returns a
// *rocketflow.BackpressureError before anything is written. One process sweeps; what it counts and how far it has looked
// is in one row that all read once in SweepInterval, so each knows what is owed without counting: exactly up to a page,
// beyond that to within what came in the last second or two. When the broker is back the sweep sends at most DrainRate.
// What a dead process left is sent within SweepGrace and twice SweepInterval, what this one could not send within
// SweepInterval. A pass reads what it hasn't read before, whatever else is open or can't be sent.
//
// One process at a time sweeps, by a lease: a row that Postgres' clock judges. A process that freezes, or is cut off, in
// the middle of a pass holds it for 10 s at most (or three times SweepInterval). When it wakes up it may go on for a moment
// beside the next one; then both send the same events, which costs doubles and no more: acks are inserted once, and how far
// the sweep has looked is written by the holder of the lease alone.
//
// Memory is bounded by bytes: the relay holds Config.RelayBytes of bodies, the sweep reads 8 MiB of them at once. What is
// committed and doesn't fit into the relay is remembered by id, read back from Postgres when there is room, and goes in
// order: a transaction of ten thousand events doesn't wait for the sweep.
//
// # What the broker rejects
//
// A topic that doesn't exist, a right that is missing, an event that is too large: what the broker rejects is noted in a
// table and stays owed. The sweep's passes step over it, and it doesn't count against MaxBacklog. It is tried again after
// pauses that double up to a minute; where the cause concerns the whole topic, one event of it is. When more than
// Config.MaxRejected events of a topic are rejected, Publish refuses events of that topic with a
// *rocketflow.BackpressureError that names it and the cause; other topics flow. Rejected and Listener.Rejected tell of it,
// it is logged once for a topic and cause, and an operator lists, retries, redirects or discards such events: see package operate.
// With Config.Topics a topic's typo is an error of Publish.
//
// # When Postgres takes no writes
//
// A demoted primary, a server set to read only, a full disk: what could not be acked isn't sent. The sweep rests while the
// server is read only; where acks fail it sends nothing more until those of what was sent are written.
//
// # What it costs others
//
// A transaction that publishes by half messages waits in Commit for them, at most HalfTimeout, with the rows of its
// streams locked. It never fails because of the broker, but for a message that the broker will never take (too large). No row
// is updated but a stream's, so a long transaction elsewhere slows nothing.
//
// Tables are partitioned by the day of the event's id, and made a week ahead. Ids follow Config.Clock; which partitions are
// made and dropped is decided by Postgres' clock. A process whose clock differs by more than a minute warns. Should a day
// have no partition, the default one takes its rows.
//
// # What the broker lost
//
// An event that the broker confirmed and lost is acked, so nothing here sends it again by itself. A consumer that sees the
// gap in a stream asks on rocketflow.MissingEventsTopic, and one process of the source sends what it has of it again, at most
// Config.ResendLimit events and Config.ResendBytes for a question, and Config.ResendRate events a second. A process answers
// 300 questions a second, 100 of one asker, and one of an asker about a stream, with bursts; an asker is sent
// Config.ResendBytes a second, all askers four times as many. What is refused is counted, and asked again for as long as
// the gap stands. Where that topic is missing gaps wait. Nothing shows a consumer that the last event of a stream, or one
// without order, is lost: Resend is for that.
//
// A service that publishes needs the right to subscribe to that topic, with the group Config.Group + "_refill"; one that
// consumes the right to publish to it. Who has that right can have events sent again, and nothing else: docs/security.md.
//
// # What is kept
//
// Delivered events are kept for Config.Retention, whole days of them, and dropped by any process; a day that owes one
// stays. The place of an idle stream is kept for Config.StreamRetention and as long as an event of it is: so a gap shows for
// as long as it can be filled. Then the stream begins anew, above its old sequence even if the clock was set back. A
// partition is only dropped when nobody has used the table for a moment: a transaction that published and stays open
// delays it.
//
// Nothing depends on a session: a pooler in transaction mode may stand before Postgres. pgx must not keep prepared
// statements then, unless the pooler knows of them: set default_query_exec_mode=cache_describe or exec.
package outbox
