// Package rocketmq is the driver for Apache RocketMQ: the broker port over rocketmq-client-go v2.1.2, and over
// connections of its own for what that client can't do.
//
// # Who does what
//
// The client sends (Send, SendGroup, Schedule, and the half messages of Prepare) and consumes. Our own connections, one
// to each broker, end half messages and wait for the answer, answer checks, create topics, ask whether a group may read
// a topic, and notice within a second that a broker went or came back.
//
// # Order
//
// A sharding key is hashed (FNV-1a, 64 bits) over the topic's writable queues sorted by broker and number, alike in
// every process and for Send, SendGroup, Prepare and Schedule. Adding queues moves keys. While a broker restarts its
// queues keep their keys, and sends to them fail with broker.ErrUnavailable rather than go elsewhere. A process that
// starts while a broker is missing doesn't know those queues: what must keep its order at any price should be on one
// broker, or be checked by the reader, as package handlers does.
//
// # What of the client is absorbed
//
// Names. Clients of one name in a process share a connection, the credentials of the first, and the handler of the
// first: each producer and consumer gets a unique instance name. (Nearly every case of the conformance suite opens two.)
//
// Contexts. With a context that has ended the client writes the request up to four times and reports a timeout: it never
// sees the caller's (SendAfterContextEnded). Its timeout is a fixed 3 s: a caller's shorter one ends the wait, and the
// send ends behind it (TestBrokerHangs).
//
// Retries. None by the client (WithRetry(0)): a second try under the same key after a lost answer doubles a message, or
// leaves an orphan half message.
//
// Asynchronous sends. The client's crash the process when an answer is late: SendAsync is Send in a goroutine of ours.
//
// Messages. The client writes into a message and caches its compressed body: each send has a fresh one (Send).
// Properties that would change a message's nature, and bytes that would break the encoding, are refused
// (SendRefusesReservedProperty). Members of a group get no unique key from the client: we set it (SendGroup).
//
// Queues. Its order of queues is not stable: ours is (TestPickIsStable, OrderByShardingKey).
//
// Routes. It looks for unknown topics under a lock, up to 6 s for each name server: we look first, with the caller's
// context (SendToUnknownTopic). It learns a new topic's queues a moment before their broker's address, and refuses sends
// in between: they are tried again (TestFirstSends).
//
// Connecting. It dials under a lock that stops all sends: what our own connection finds down isn't tried
// (TestBrokerRestart).
//
// Errors. It hands out codes as text: TestClientErrorText. Its panics become errors.
//
// Transactions. The client's transaction producer is not used: it registers only after its first send, answers one
// check at a time, answers none after a panic, drops the error of an end, and shares the first creator's handler. Our
// connection registers at once (CheckAnsweredAfterRestart), asks concurrently and recovers (CheckPanics), waits for the
// end's answer (TransactionCommit), and is back with the broker (TestBrokerRestart; the client takes 16 to 34 s).
//
// The application's functions. Handlers, checkers, listeners and what is told of a send run guarded: a panic or a
// runtime.Goexit ends that one call (RedeliveryAfterGoexit, CheckPanics, TestFunctionsThatEnd).
//
// Handlers. Anything but success makes the client send a message back to the broker without looking at the answer,
// which can lose it; a panic leaves it hanging for 15 minutes. A failed message is held and tried again (100 ms to 5 s)
// until it is settled (RedeliveryAfterError, RedeliveryAfterPanic). Meanwhile others flow on: up to 65,535 that follow it
// in its queue. After a crash these come again.
//
// Serial consumers. Only success and suspend are safe results, and suspend without a pause spins: it is set each time
// (GlobalOrder). When a queue moves to another process it stands still for up to 80 s.
//
// Stopping. Shutdown waits for nothing and drops late results: a gate in front of the handler drains first
// (DrainOnStop). Shutdown of a consumer that never started panics: it isn't called. Shutdown says nothing to the broker
// and cuts the connection, also under a heartbeat: then the consumer stays in its group for two minutes, and what it had
// of the queues unread. It is called when no heartbeat should be under way: see Config.StopQuietPeriod (TestStopLeavesNoGhost).
//
// Starting. A consumer without permission starts in silence and stays silent: Subscribe asks first (TestCredentials),
// and returns when a broker lists the consumer. A group that begins at the end would begin at the start of a young queue,
// and at the end of one that comes later: its offsets are set before it starts (BeginNewest, BeginAt,
// TestQueuesThatComeLater). RocketMQ 4.9 doesn't tell a new group from one at offset 0, so there it begins at the oldest.
//
// Broker restarts. The client's consumers would sleep for up to a minute: they are renewed (TestBrokerRestart). So is one
// whose connection alone breaks, when the broker no longer lists it: the client awaits the answers of its pulls for 30 s
// (TestConsumerIsCut). One that a broker lists for its old connection, too, is given its queues once (TestListedTwice).
//
// Name servers. The client takes no host names: we look them up (TestOpenFails). It asks all of them in turn and waits 6 s
// for one that hangs, at each start of a consumer: it is told only of those that answer, and every two minutes again. We ask
// the one that answered last, the next when that takes more than a moment, and those that failed last (TestOneBadNameServer,
// TestNameServersComeAndGo).
//
// Log. It goes to Config.Logger, a level or two lower, without payloads; Fatal doesn't exit.
//
// # What remains
//
// Each consumer that ends leaves goroutines of the client asleep, some for an hour, one for 72: consumers are meant to
// live as long as the process. (The tests name them, in TestMain.) The client races with itself in consumers, so tests
// that consume can't run under the race detector. There is no TLS.
//
// A process that is killed within a millisecond or so of a heartbeat of its consumers may stay a member of their groups,
// and its queues unread, until the broker has missed its heartbeats for two minutes: the broker handles the connection's
// end before it handles the heartbeat (rocketmqtest has TestDeadMembersStayListed). Events of these queues are late then, not lost. One
// that dies of its first messages does so often, as they follow its heartbeat. RocketMQ 5's channelExpiredTimeout, in
// milliseconds, makes it less: 45000, as deploy/broker.conf has it, is still one and a half of the client's heartbeats.
//
// A broker that loses messages in a power failure may still know that a group has read them. Where others come in their
// place before the group's consumers are back, these pass over them, too. The gap shows it as it shows what was lost.
package rocketmq
