// Package broker defines the port between rocketflow and a message broker: what the outbox, handlers and timeouts need of one, as a few
// small interfaces, and the delivery contract that every driver fulfils. Import it to send or consume messages without a dependency on one
// driver, or to write a driver.
//
// The driver for Apache RocketMQ is package rocketmq. A driver is tested with the conformance suite in package brokertest.
//
//	var sender broker.Sender = client // a *rocketmq.Client
//	receipt, err := sender.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "order-7", Body: body})
//	if errors.Is(err, broker.ErrRejected) {
//		// definitely not stored; any other error leaves open whether it was
//	}
//
// # Delivery contract
//
//   - Stored. Send, SendGroup, Schedule and Commit return nil only after the broker has stored the message. After an error it is unknown
//     whether the message was stored, unless the error matches [ErrRejected]: then it was not.
//   - Half messages. Prepare stores a half message, which consumers don't see before Commit. A second Commit delivers the message a
//     second time. Rollback after Commit has no effect. About a half message that is neither committed nor rolled back the broker sends
//     a check-back to a member of the producer group, whose [Checker] decides.
//   - At least once. A [Handler] is called at least once for each message of its subscription. When it returns nil the message is settled
//     for the group. After an error, a panic, a runtime.Goexit or a crash the message is delivered again.
//   - Concurrency. Handler calls are concurrent. Only with Subscription.Serial is the next message of a queue held back until the
//     message before it is settled.
//   - Order. Messages with the same sharding key that are sent one after the other, each after the response to the one before, are
//     stored in that order in one queue.
//   - Functions of the application. A panic or a runtime.Goexit in a Handler, a Checker or a done function ends that one call and
//     nothing else.
//   - Contexts. A context bounds the wait for a response. What was sent before it ended may still take effect.
//   - Safety. All methods are safe for concurrent use. A driver never changes a [Message], and the caller may use it again after the
//     call.
//
// # What a broker doesn't check
//
// A message doesn't say which user sent it. A user that may publish to a topic can publish any event, of any source, with any
// sequence. docs/security.md says what that allows and which grants limit it.
package broker
