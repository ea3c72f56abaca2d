------------------------------- MODULE Outbox -------------------------------
(***************************************************************************)
(* The protocol of package outbox, from a transaction's rows to the        *)
(* consumer's effect, with everything that may go wrong on the way. Each   *)
(* event is published by a transaction of its own; all are of one stream.  *)
(* README.md beside it says how to read and to run it.                     *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Events,     \* 1..n. An event's number is its transaction's id, too.
    MaxChecks,  \* The broker gives a half message up after so many checks.
    MaxCopies,  \* Copies of an event in its topic are counted to here.
    MaxFaults,  \* The maximum number of faults; 99: any number.
    Off         \* Guards that are switched off, to see that they are needed.

Guards == {
    "visible row",  \* A check-back is decided with commit for a visible row only.
    "unknown",      \* Nothing is ended after a COMMIT whose response was lost.
    "look up",      \* After the Commit of a joined transaction returned nil, events
                    \* are sent only if their row is found committed.
    "response",     \* Nothing is acked without the broker's response.
    "sweep",        \* There is a sweep.
    "watermark",    \* Its watermark waits for open transactions.
    "inbox",        \* A consumer skips what it has handled,
    "link",         \* and waits for the predecessor.
    "ack"}          \* A check-back of an event with an ack is decided with rollback.
ASSUME Off \subseteq Guards
Uncounted == 99
On(guard) == guard \notin Off

VARIABLES
    (* Postgres of the publisher *)
    db,      \* The state of each transaction in Postgres.
    stream,  \* The events that have taken their place in the stream, in its order.
    acks,    \* Rows of outbox_ack.
    again,   \* Transactions whose rows the sweep must read, for the first time or again.
    (* memory of processes, which a crash loses *)
    pub,     \* How far the publisher, then its relay, is with each event.
    held,    \* Events whose half message the publisher has stored.
    sweep,   \* A pass of the sweep, with the transactions that were open when it began.
    (* the broker *)
    net,     \* Requests without a response. Each may arrive late, often or never.
    disk,    \* Half messages stored: END finds them, in whatever state they are.
    open,    \* Half messages without a marker that they were ended.
    checks,  \* How often each was checked.
    copies,  \* How often each event was put into its topic.
    (* Postgres of the consumer *)
    handled, \* The effects, in their order.
    faults   \* The number of faults so far.

postgres == <<db, stream, acks, again>>
memory   == <<pub, held>>
halves   == <<disk, open, checks>>
topic    == <<net, copies>>
vars     == <<postgres, memory, sweep, halves, topic, handled, faults>>

Range(s)  == {s[i] : i \in DOMAIN s}
Place(e)  == CHOOSE i \in DOMAIN stream : stream[i] = e  \* its sequence
Committed == {e \in Events : db[e] = "committed"}
Ended     == {e \in Events : db[e] \in {"committed", "aborted"}}
Max(S)    == CHOOSE x \in S : \A y \in S : x >= y
NoPass   == [pass |-> FALSE, open |-> {}]

Init ==
    /\ db = [e \in Events |-> "open"]  \* Begun, with an id: the business writes first.
    /\ stream = <<>> /\ acks = {} /\ again = Events
    /\ pub = [e \in Events |-> "tx"] /\ held = {} /\ sweep = NoPass
    /\ net = {} /\ disk = {} /\ open = {}
    /\ checks = [e \in Events |-> 0] /\ copies = [e \in Events |-> 0]
    /\ handled = <<>> /\ faults = 0

-----------------------------------------------------------------------------
(* Requests to the broker. It looks at no state: END with commit puts the   *)
(* event into its topic as often as it comes. What could only add to a      *)
(* count that is full is forgotten, to have fewer states.                   *)

StoreHalf(e) == disk' = disk \cup {e} /\ open' = open \cup {e} /\ UNCHANGED checks
Send(e) ==
    /\ copies' = [copies EXCEPT ![e] = IF @ < MaxCopies THEN @ + 1 ELSE @]
    /\ net' = IF copies'[e] < MaxCopies THEN net ELSE net \ {<<"end", e>>, <<"send", e>>}
End(e) == e \in disk /\ Send(e) /\ open' = open \ {e} /\ UNCHANGED disk

NoResponse(request, e) ==
    /\ net' = IF request = "half" \/ copies[e] < MaxCopies THEN net \cup {<<request, e>>} ELSE net
    /\ UNCHANGED copies

(* For check-back and sweep a lost ack is the same as a lost response. *)
Ack(e) == acks' = acks \cup {e}

-----------------------------------------------------------------------------
(* The publisher: Commit of outbox/tx.go. The numbers are the rows of the   *)
(* table in outbox/doc.go. Crash may follow each.                           *)

Goto(e, step) ==
    /\ pub' = [pub EXCEPT ![e] = step]
    /\ held' = IF step = "commit" THEN held ELSE held \ {e}

(* 1. Takes the stream's row lock, which is held until the transaction ends. *)
Record(e) ==
    /\ pub[e] = "tx" /\ db[e] = "open"
    /\ \A f \in Events : db[f] \notin {"recorded", "committing"}
    /\ db' = [db EXCEPT ![e] = "recorded"]
    /\ stream' = Append(stream, e)
    /\ UNCHANGED <<acks, again, memory, sweep, halves, topic, handled>>

(* 2, the half-message path. Without this step, or after the next, the event takes the relay path. *)
PrepareHalf(e) ==
    /\ pub[e] = "tx" /\ db[e] = "recorded" /\ e \notin held
    /\ StoreHalf(e)
    /\ held' = held \cup {e}
    /\ UNCHANGED <<postgres, pub, sweep, topic, handled>>

PrepareFails(e) ==
    /\ pub[e] = "tx" /\ db[e] = "recorded" /\ e \notin held
    /\ NoResponse("half", e)
    /\ UNCHANGED <<postgres, memory, sweep, halves, handled>>

SendCommit(e) ==
    /\ pub[e] = "tx" /\ db[e] = "recorded"
    /\ db' = [db EXCEPT ![e] = "committing"]
    /\ Goto(e, "commit")
    /\ UNCHANGED <<stream, acks, again, sweep, halves, topic, handled>>

Finish(e) == Goto(e, IF e \in held THEN "end" ELSE "relay")

(* 3. The transaction may be committed, rolled back, or open still. *)
CommitResponseLost(e) ==
    /\ pub[e] = "commit"
    /\ IF On("unknown") THEN Goto(e, "gone") ELSE Finish(e)
    /\ UNCHANGED <<postgres, sweep, halves, topic, handled>>

(* A joined transaction. Commit returned nil although the transaction is    *)
(* open, for instance because it only released a savepoint. Its owner       *)
(* commits it, rolls it back, or rolls back to a savepoint, which undoes    *)
(* the row.                                                                 *)
JoinedReturnsNil(e) ==
    /\ pub[e] = "tx" /\ db[e] = "recorded"
    /\ IF On("look up") THEN Goto(e, "gone") ELSE Finish(e)
    /\ UNCHANGED <<postgres, sweep, halves, topic, handled>>

OwnerCommits(e) ==
    /\ db[e] = "recorded"
    /\ db' = [db EXCEPT ![e] = "committing"]
    /\ UNCHANGED <<stream, acks, again, memory, sweep, halves, topic, handled>>

(* It is committed, and the look-up after Commit finds the row. *)
JoinedIsFound(e) ==
    /\ pub[e] = "tx" /\ db[e] = "committed"
    /\ Finish(e)
    /\ UNCHANGED <<postgres, sweep, halves, topic, handled>>

(* 4. *)
CommitConfirmed(e) ==
    /\ pub[e] = "commit" /\ db[e] = "committed"
    /\ Finish(e)
    /\ UNCHANGED <<postgres, sweep, halves, topic, handled>>

Abandon(e) ==
    /\ pub[e] \in {"tx", "commit"} /\ db[e] = "aborted"
    /\ Goto(e, "gone")
    /\ open' = open \ {e}
    /\ UNCHANGED <<postgres, sweep, disk, checks, topic, handled>>

(* 5. *)
EndFails(e) ==
    /\ pub[e] = "end"
    /\ NoResponse("end", e)
    /\ Goto(e, IF On("response") THEN "relay" ELSE "ack")
    /\ UNCHANGED <<postgres, sweep, halves, handled>>

(* 6. *)
EndHalf(e) ==
    /\ pub[e] = "end"
    /\ End(e)
    /\ Goto(e, "ack")
    /\ UNCHANGED <<postgres, sweep, checks, handled>>

(* 6, by the relay, which drops what it can't send. *)
RelaySends(e) ==
    /\ pub[e] = "relay"
    /\ Send(e)
    /\ Goto(e, "ack")
    /\ UNCHANGED <<postgres, sweep, halves, handled>>

RelayFails(e) ==
    /\ pub[e] = "relay"
    /\ NoResponse("send", e)
    /\ Goto(e, IF On("response") THEN "gone" ELSE "ack")
    /\ UNCHANGED <<postgres, sweep, halves, handled>>

(* 7. *)
WriteAck(e) ==
    /\ pub[e] = "ack"
    /\ acks' = acks \cup {e}
    /\ Goto(e, "gone")
    /\ UNCHANGED <<db, stream, again, sweep, halves, topic, handled>>

Crash(e) ==
    /\ pub[e] # "gone"
    /\ Goto(e, "gone")
    /\ UNCHANGED <<postgres, sweep, halves, topic, handled>>

-----------------------------------------------------------------------------
(* Postgres. A transaction whose client is gone may stay open for any time. *)
(* An ack doesn't wait for the disk, so a crash can undo it.                *)

PostgresCommits(e) ==
    /\ db[e] = "committing"
    /\ db' = [db EXCEPT ![e] = "committed"]
    /\ UNCHANGED <<stream, acks, again, memory, sweep, halves, topic, handled>>

PostgresAborts(e) ==
    /\ e \notin Ended
    /\ db' = [db EXCEPT ![e] = "aborted"]
    /\ stream' = SelectSeq(stream, LAMBDA f : f # e)
    /\ UNCHANGED <<acks, again, memory, sweep, halves, topic, handled>>

PostgresForgetsAck(e) ==
    /\ e \in acks
    /\ acks' = acks \ {e}
    /\ UNCHANGED <<db, stream, again, memory, sweep, halves, topic, handled>>

-----------------------------------------------------------------------------
(* The broker. *)

LateHalf(e) ==
    /\ <<"half", e>> \in net
    /\ StoreHalf(e)
    /\ net' = net \ {<<"half", e>>}
    /\ UNCHANGED <<postgres, memory, sweep, copies, handled>>

LateEnd(e) ==
    /\ <<"end", e>> \in net
    /\ End(e)
    /\ UNCHANGED <<postgres, memory, sweep, checks, handled>>

LateSend(e) ==
    /\ <<"send", e>> \in net
    /\ Send(e)
    /\ UNCHANGED <<postgres, memory, sweep, halves, handled>>

(* outbox/checkback.go. A check that is lost, or decided with unknown, counts. *)
ToCommit(e) == e \in Committed \/ ~On("visible row")
IsAcked(e)  == e \in acks /\ On("ack")
Checked(e)    == e \in open /\ checks[e] < MaxChecks /\ checks' = [checks EXCEPT ![e] = @ + 1]

CheckUnknown(e) ==
    /\ Checked(e)
    /\ UNCHANGED <<postgres, memory, sweep, disk, open, topic, handled>>

CheckCommits(e) ==
    /\ Checked(e) /\ ToCommit(e) /\ ~IsAcked(e)
    /\ End(e) /\ Ack(e)
    /\ UNCHANGED <<db, stream, again, memory, sweep, handled>>

CheckCommitFails(e) ==
    /\ Checked(e) /\ ToCommit(e) /\ ~IsAcked(e)
    /\ NoResponse("end", e)
    /\ UNCHANGED <<postgres, memory, sweep, disk, open, handled>>

CheckRollsBack(e) ==
    /\ Checked(e) /\ (IsAcked(e) \/ ~ToCommit(e))
    /\ open' = open \ {e}
    /\ UNCHANGED <<postgres, memory, sweep, disk, topic, handled>>

GiveUp(e) ==
    /\ e \in open /\ checks[e] = MaxChecks
    /\ open' = open \ {e}
    /\ UNCHANGED <<postgres, memory, sweep, disk, checks, topic, handled>>

(* It crashes before the marker is on its disk, or END came for another of  *)
(* the copies that each check makes of a half message.                      *)
LoseMarker(e) ==
    /\ e \in disk \ open
    /\ open' = open \cup {e}
    /\ UNCHANGED <<postgres, memory, sweep, disk, checks, topic, handled>>

LoseHalf(e) ==
    /\ e \in disk
    /\ disk' = disk \ {e} /\ open' = open \ {e} /\ checks' = [checks EXCEPT ![e] = 0]
    /\ UNCHANGED <<postgres, memory, sweep, topic, handled>>

-----------------------------------------------------------------------------
(* The sweep: pass() of outbox/sweep.go. Which transactions are open is     *)
(* read first, then the rows are looked at. What was owed or open then is   *)
(* looked at again in the next pass.                                        *)

Owed == (Committed \cap again) \ acks

SweepStart ==
    /\ On("sweep") /\ ~sweep.pass /\ again # {}
    /\ sweep' = [pass |-> TRUE, open |-> IF On("watermark") THEN Events \ Ended ELSE {}]
    /\ UNCHANGED <<postgres, memory, halves, topic, handled>>

(* Not all need be sent: some are too young, and the broker rejects some. *)
SweepSends(e) ==
    /\ sweep.pass /\ e \in Owed
    /\ Send(e) /\ Ack(e)
    /\ UNCHANGED <<db, stream, again, memory, sweep, halves, handled>>

SweepFails(e) ==
    /\ sweep.pass /\ e \in Owed
    /\ NoResponse("send", e)
    /\ sweep' = NoPass
    /\ UNCHANGED <<postgres, memory, halves, handled>>

SweepEnds ==
    /\ sweep.pass
    /\ again' = Owed \cup sweep.open
    /\ sweep' = NoPass
    /\ UNCHANGED <<db, stream, acks, memory, halves, topic, handled>>

SweepCrash ==
    /\ sweep.pass
    /\ sweep' = NoPass
    /\ UNCHANGED <<postgres, memory, halves, topic, handled>>

-----------------------------------------------------------------------------
(* The consumer: decide() of handlers/decision.go. A message is delivered   *)
(* any number of times.       Effect and position are one transaction, so a *)
(* crash comes before or after it.                                          *)

Position == IF handled = <<>> THEN 0 ELSE Max({Place(e) : e \in Range(handled)})

Handle(e) ==
    /\ copies[e] > 0
    /\ On("inbox") => Place(e) > Position       \* else a duplicate
    /\ On("link")  => Place(e) - 1 <= Position  \* else early: it is parked
    /\ handled' = Append(handled, e)
    /\ UNCHANGED <<postgres, memory, sweep, halves, topic>>

-----------------------------------------------------------------------------
Step(e) ==
    \/ Record(e) \/ PrepareHalf(e) \/ SendCommit(e) \/ CommitConfirmed(e) \/ Abandon(e)
    \/ JoinedReturnsNil(e) \/ OwnerCommits(e) \/ JoinedIsFound(e)
    \/ EndHalf(e) \/ RelaySends(e) \/ WriteAck(e) \/ SweepSends(e) \/ Handle(e)
    \/ PostgresCommits(e) \/ PostgresAborts(e)
    \/ LateHalf(e) \/ LateEnd(e) \/ LateSend(e) \/ GiveUp(e)
    \/ CheckUnknown(e) \/ CheckCommits(e) \/ CheckRollsBack(e)

Fault(e) ==
    \/ PrepareFails(e) \/ CommitResponseLost(e) \/ EndFails(e) \/ RelayFails(e) \/ SweepFails(e) \/ CheckCommitFails(e)
    \/ Crash(e) \/ PostgresForgetsAck(e) \/ LoseMarker(e) \/ LoseHalf(e)

Next ==
    \/ /\ SweepStart \/ SweepEnds \/ \E e \in Events : Step(e)
       /\ UNCHANGED faults
    \/ /\ SweepCrash \/ \E e \in Events : Fault(e)
       /\ faults < MaxFaults
       /\ faults' = IF MaxFaults = Uncounted THEN 0 ELSE faults + 1

Spec == Init /\ [][Next]_vars

(* Only the sweep and the consumer must make progress: the sweep makes a    *)
(* pass from time to time, in which the broker sometimes accepts an event.  *)
(* Publishers may die, and check-backs may get no response.                 *)
Fairness ==
    /\ WF_vars(SweepStart /\ UNCHANGED faults)
    /\ WF_vars(SweepEnds /\ UNCHANGED faults)
    /\ \A e \in Events : SF_vars(SweepSends(e) /\ UNCHANGED faults) /\ WF_vars(Handle(e) /\ UNCHANGED faults)

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------
(* What is promised. *)

(* G1: what consumers can see was committed. *)
OutIsCommitted == \A e \in Events : copies[e] > 0 => e \in Committed

(* An event with an ack was sent: neither sweep nor check-back will send it. *)
AckedIsOut == \A e \in acks : copies[e] > 0

(* G3 *)
EffectOnce == \A i, j \in DOMAIN handled : handled[i] = handled[j] => i = j

(* G4: in the order of commits, without gaps. *)
EffectsInOrder == \A i \in DOMAIN handled : \A p \in 1..Place(handled[i]) : \E j \in 1..i : handled[j] = stream[p]

(* G2 *)
CommittedIsHandled == \A e \in Events : e \in Committed ~> e \in Range(handled)

(* An event with an ack isn't put out again by a check. *)
NoDoubleFromRepeatedCheck ==
    [][\A e \in acks : checks'[e] > checks[e] => copies'[e] = copies[e]]_vars
=============================================================================
