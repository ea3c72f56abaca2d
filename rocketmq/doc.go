// Package rocketmq is rocketflow's driver for Apache RocketMQ: it sends, schedules and consumes messages, and runs transaction producers.
// It implements the interfaces of package broker. Applications usually give its [Config] to package app or rocketflowfx, and it can be
// used alone:
//
//	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{"127.0.0.1:9876"}, Service: "billing"})
//	if err != nil {
//		return err
//	}
//	defer client.Close(ctx)
//
//	receipt, err := client.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "order-7", Body: []byte("placed")})
//
//	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: "billing", Topics: []string{"orders"}},
//		func(ctx context.Context, d broker.Delivery) error {
//			return handle(ctx, d.Body) // nil settles the message; after an error it is delivered again
//		})
//
// With [Config].TLS all connections use TLS, verified, if need be with a certificate of the client; docs/security.md has the settings of
// RocketMQ. What only an operator can fix, such as an authority that is not trusted, is an error of [Open] that says which
// (TestOpenSaysWhatPreventsTLS).
//
// Topics must exist: create them with [Client.CreateTopics], or with `mqadmin updateTopic`. A program opens one Client. For a readiness
// probe there is [Client.Ping]; for metrics, [Listener]. The delivery contract is in package broker; tests can use the embedded broker in
// package rocketmqtest.
//
// # Two transports
//
// Config.Transport chooses what sends (Send, SendGroup, Schedule, and the half messages of Prepare) and consumes. Both pass the conformance
// suite, and processes with either can share a consumer group, as during a rolling upgrade (TestTransportsShareAGroup).
//
// [Own], the default, uses connections of the driver itself. [ClientGo] uses rocketmq-client-go v2.1.2, called "the client" below. What
// differs with Own:
//
//   - Bodies compressed with zlib are read up to Config.MaxMessage after decompression, too: see below.
//   - A record that stays damaged when it is read again is delivered as unreadable, with what can be read of it, and those behind it
//     are read (TestDamagedRecordIsDelivered). If it can't be known where it ends, its queue isn't read any further: Consumer.Err and the
//     log name the offset, and an operator moves the group past it (TestRecordOfUnknownLengthHoldsItsQueue).
//   - A broker or name server that responds with nonsense costs the one request (TestNonsenseCostsTheRequest).
//   - A consumer goes on within a second of a broker's return, where it was (TestConsumesAgainAfterKills), and follows a broker to another
//     address (TestConsumerFollowsABrokerToItsNewAddress). It isn't restarted, so Listener.ConsumerRestarted is hardly ever called.
//   - A broker whose host has vanished, which TCP doesn't notice, is noticed within 13 s, and within a few seconds by a client that sends
//     (TestVanishedBrokerIsNoticed).
//   - A slave is read when its master says so, as when what is read is no longer in memory, and while the master is away. Offsets and
//     locks wait for the master, which learns the offsets before it is read again, so that nothing comes twice
//     (TestSlaveIsReadWhenItsMasterSaysSo, TestSlaveIsReadWhileItsMasterIsAway). Consumer.Err goes on to report the master. A consumer
//     can't start while no master of its topics can be reached.
//   - A consumer that stops waits for its handlers and for nothing else: it unregisters from the brokers, and Config.StopQuietPeriod isn't
//     needed (TestConsumerUnregistersWhenItStops).
//   - RocketMQ's tools see its consumers as those of any client: their queues and offsets, stacks, and resets of offsets
//     (TestOperatorsRequestsAreAnswered), and have it handle one message (TestOperatorsHaveAMessageHandled); for mqadmin see
//     TestRocketMQsToolsSeeTheConsumer.
//   - Headers of requests are binary where the broker takes them, which saves some 8 % of the client's processor time for a send, and more
//     of the broker's (TestHeadersAreBinaryWhereTheBrokerTakesThem, BenchmarkSend).
//   - It has no data races and leaves no goroutines, so tests that consume can run under the race detector. The client can end the process
//     with "send on closed channel" if a consumer stops at the moment at which messages come: the driver stops its pulls before, which
//     leaves the pull that the broker holds. (Seen once in the driver's tests, in its processQueue.putMessage.)
//
// With either transport the driver also has a connection of its own to each broker. Through it the driver ends half messages and waits for
// the response, answers check-backs, creates topics, checks a group's grants, and notices within a second that a broker is down or up. A
// consumer of Own has further connections, so that what it pulls doesn't delay these.
//
// # Kinds of RocketMQ
//
// [Config].Profile says what the addresses lead to: Apache RocketMQ 5 or 4, its proxy, or a cloud's. [Profile.Facts] is what is known of each
// kind, with a source for each fact (TestFactsHaveSources), and docs/clouds.md has it as tables. What a kind can't do is refused with an
// error that names the profile and the reason (TestProfileRefusesAtTheStart in package app), or done in another way: brokers are found in the
// routes of topics where the cluster can't be asked for them (TestConsumerFollowsABrokerToItsNewAddress), half messages and timers fail with
// broker.ErrNoHalfMessages and broker.ErrNoTimers, for which package outbox has the relay and package timeout has Postgres
// (TestServiceBehindAProxy in package app), and a sharding key goes into a property of the driver's own (TestShardingKeysThroughAProxy).
//
// # Messages of other clients
//
// Messages of RocketMQ's other clients are delivered with what they say: without a tag, keys or properties, delayed, transactional, members
// of a batch (package neighbours in test, with the client in Java). Bodies compressed with zlib, lz4 or zstd are read, up to
// Config.MaxMessage after decompression; with ClientGo there is no limit for zlib. What can't be read is delivered with the reason, and
// package handlers makes it a dead letter that has it (TestEveryCompressionIsRead).
//
// Brokers such as 4.9.7 and 5.3.3 append the properties of a batch to those of each member, so that each has two unique keys, its own and
// then the batch's. Clients read the last one, with which the members of a batch look like copies of one message. The driver delivers the
// first; with ClientGo it reads such a member once more on its own connection, because the client doesn't show that key
// (TestBatchMembersHaveTheirOwnKeys, TestBatchMemberWaitsForItsKey).
//
// # Order
//
// A sharding key is hashed (FNV-1a, 64 bits) over the topic's writable queues, sorted by broker and number. The result is the same in
// every process, and for Send, SendGroup, Prepare and Schedule. When queues are added, keys move to other queues. While a broker restarts,
// its queues keep their keys: sends to them fail with broker.ErrUnavailable and don't go to other queues. A process that starts while a
// broker is down doesn't know that broker's queues. If order must hold in that case too, keep the topic on one broker, or let the consumer
// check the order, as package handlers does.
//
// # Problems of the client that the driver solves
//
// This section is about the transport ClientGo. In parentheses: the tests, in this package or in the conformance suite (package
// brokertest), that show it.
//
// Instance names. Clients with the same instance name in a process share one connection, the first one's credentials and the first one's
// request handler. The driver gives each producer and consumer a unique name. (Nearly every case of the conformance suite opens two.)
//
// Contexts. With a context that has ended, the client writes the request up to four times and reports a timeout. The driver never gives it
// the caller's context (SendAfterContextEnded). The client's timeout is a fixed 3 s. A shorter one of the caller ends the wait; the send
// itself ends later (TestBrokerHangs).
//
// Retries. A second attempt with the same key after a lost response stores a message twice, or leaves a half message without an end. The
// client retries nothing (WithRetry(0)).
//
// Asynchronous sends. Those of the client crash the process when a response is late. SendAsync calls Send in a goroutine.
//
// Messages. The client writes into a message and caches its compressed body. Each send has a new one (Send). Properties that would turn
// the message into something else, and bytes that would break the encoding, are refused (SendRefusesReservedProperty). The client sets
// no unique keys for messages of a group; the driver does (SendGroup).
//
// Queues. The client's order of queues isn't stable; the driver's is (TestShardingKeyChoosesTheSameQueueInAllProcesses,
// OrderByShardingKey).
//
// Routes. The client looks up unknown topics under a lock, for up to 6 s for each name server. The driver looks them up first, with the
// caller's context (SendToUnknownTopic). The client learns a new topic's queues a moment before the broker's address and fails sends in
// between; the driver repeats them (TestSendsToANewTopic).
//
// Connecting. The client connects under a lock that stops all sends. The driver sends nothing to a broker that its own connection shows to
// be down (TestBrokerRestart).
//
// Errors. The client returns response codes as text. The driver returns typed errors (TestErrorOfClientIsTyped), also for panics of the
// client.
//
// Transactions. The client's transaction producer registers only after its first send, answers one check-back at a time and none after a
// panic, loses the error of a commit or rollback, and shares the first instance's request handler. The driver doesn't use it: its own
// connection registers at once (CheckAnsweredAfterRestart), answers concurrently and survives panics (CheckPanics), waits for the
// response to a commit or rollback (TransactionCommit), and is up as soon as the broker is (TestBrokerRestart; the client takes 16 to
// 34 s).
//
// Functions of the application. A panic or a runtime.Goexit in a handler, checker, listener or done function ends that one call
// (RedeliveryAfterGoexit, CheckPanics, TestPanicsOfTheApplicationEndOneCall).
//
// Failed messages. After any result but success the client sends the message back to the broker and ignores the response, which can lose
// the message; after a panic it does nothing for 15 minutes. The driver holds a failed message and calls the handler again, after 100 ms to
// 5 s, until the message is settled (RedeliveryAfterError, RedeliveryAfterPanic). Up to 65,535 messages behind it in its queue are
// delivered meanwhile, and delivered again if the process crashes.
//
// Serial consumers. A serial consumer may return only success and suspend, and suspend without a pause is a busy loop. The driver sets the
// pause each time (GlobalOrder). When a queue moves to another process it is not read for up to 80 s.
//
// Stopping. The client's Shutdown waits for no handler and loses results that come later; for a consumer that never started it panics. The
// driver first waits for running handlers (DrainOnStop), and doesn't shut down what never started. Shutdown also doesn't unregister the
// consumer, and closes its connection even while a heartbeat is in flight: then the broker may list the consumer for two more minutes,
// while its queues are not read. The driver calls Shutdown when no heartbeat should be in flight: see Config.StopQuietPeriod
// (TestStopRemovesConsumersFromTheirGroup).
//
// Starting. A consumer without grants starts without an error and gets no messages. Subscribe checks the grants first (TestCredentials,
// TestGrants), and returns when a broker lists the consumer. A new group that asks for the newest messages would get the oldest of a young
// queue, and would skip messages of queues that are added later. The driver sets the group's offsets before the start (BeginNewest,
// BeginAt, TestQueuesAddedLaterAreReadFromTheirOldestMessage). RocketMQ 4.9 responds alike about a new group and one at offset 0;
// there the list of the offsets of all groups shows the difference (TestConformance).
//
// Restarts of brokers. The client's consumers would get no messages for up to a minute. The driver restarts them (TestBrokerRestart). It
// also restarts a consumer that no broker lists any more because only its own connection broke: the client waits 30 s for the responses
// to its pulls (TestConsumerSurvivesABrokenConnection). A consumer that a broker lists for its old connection as well is allocated its
// queues once (TestConsumerListedTwiceReadsAllQueues).
//
// Name servers. The client takes no host names; the driver looks them up (TestOpenFails). At each start of a consumer the client sends
// requests to all name servers in turn and waits 6 s for one that hangs; the driver gives it only those that respond, every two minutes
// again. The driver itself sends a request to the one that responded last, to the next if that takes longer than 250 ms, and last to those
// that have failed (TestOneBadNameServer, TestNameServersComeAndGo).
//
// Log. The client's log goes to Config.Logger, at lower levels and without payloads. Its Fatal doesn't exit.
//
// # Known limits
//
// With ClientGo, each consumer that ends leaves sleeping goroutines of the client, some for an hour, one for 72 hours: let consumers live
// as long as the process. (TestMain lists them.) The client's consumers have data races, so tests that consume can't run under the race
// detector. The client makes no TLS connections that it verifies: Config.TLS needs the transport Own, and Open refuses it with ClientGo.
//
// A process that is killed within about a millisecond of a heartbeat of its consumers may stay a member of their groups until the broker
// has missed its heartbeats for two minutes, and its queues are not read until then: the broker has handled the end of the connection
// before the heartbeat (TestDeadMembersStayListed in package rocketmqtest). The messages of these queues are late, not lost. It often
// happens to a process that is killed by its first messages, because they follow its heartbeat. The broker's setting channelExpiredTimeout
// shortens the two minutes: 45000 ms, as in deploy/broker.conf, is still one and a half of the client's heartbeats.
//
// With Own, topics of type BatchCQ aren't read: their messages are delivered as unreadable.
//
// A broker that loses messages in a power failure may keep the offsets of a group that had read them. If other messages are stored in
// their place before the group's consumers are connected again, the consumers skip these as well. Package handlers detects that as a gap,
// like the loss itself.
package rocketmq
