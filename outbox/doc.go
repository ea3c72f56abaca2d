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
// docs/model has all this as a model in TLA+ that TLC checks exhaustively: an action for each row, and a counter-example
// for each of the four when it is taken away.
//
// # Gears
//
// A transaction decides before it commits how all its events go, and never waits for the decision. Half messages cost the
// broker two requests an event and are the quickest at rest; groups cost it a fraction of one and carry more. So a
// transaction takes half messages while at most Config.MaxHalves events are on their way, its own included: those of
// transactions that commit, those of half messages until the broker has answered their ends, and those that the relay is
// about to send. Whoever finds more, or an event of the same stream with the relay, takes the relay at once.
//
// So does everybody while the breaker is open: three failures in a row, or half of many, that is, errors and answers
// later than HalfTimeout (what the broker rejects is an answer). Until it opens, at most MaxHalves transactions at a time
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
// knows. A transaction with savepoints, large objects or a begin or commit statement of its own sends them separately.
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
// # What it costs others
//
// A transaction that publishes by half messages waits in Commit for them, at most HalfTimeout, with the rows of its
// streams locked. It never fails because of the broker, but for a message that the broker will never take (too large). No row
// is updated but a stream's, so a long transaction elsewhere slows nothing.
//
// Tables are partitioned by the day of the event's id, by Config.Clock, and made a week ahead. Should a day have none, the
// default partition takes its rows.
//
// # What the broker lost
//
// An event that the broker confirmed and lost is acked, so nothing here sends it again by itself. A consumer that sees the
// gap in a stream asks on rocketflow.RefillTopic, and one process of the source sends what it has of it again, at most
// Config.RefillLimit events and Config.RefillBytes for a question, and Config.RefillRate events a second. A process answers
// 300 questions a second, 100 of one asker, and one of an asker about a stream, with bursts; an asker is sent
// Config.RefillBytes a second, all askers four times as many. What is refused is counted, and asked again for as long as
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
// The sweep holds a session's advisory lock: connect to Postgres directly, or by a pooler in session mode.
package outbox
