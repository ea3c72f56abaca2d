// Package groupmember is a member of a RocketMQ consumer group: it shares the queues of topics with the other members,
// pulls messages from its queues, runs a handler for them, and stores how far the group has come.
//
// The members of a group divide the queues by the averaging rule of RocketMQ's own clients, so that members of different
// clients can be in one group: each queue is read by one of them. A queue that moves to another member may be read by both
// for a moment, from the last offset that was stored, so a message can be handled twice but is never skipped.
//
// Flow control: for each queue at most Config.MaxBuffered messages and Config.MaxBufferedBytes of their bodies wait in
// memory. While they do, the queue isn't pulled.
//
// A queue is read from its broker's master, and from a slave when the master says so or can't be reached. A slave may lack the newest
// messages, and its offsets may be old, so it never decides what is passed over: only messages that it returns move the position. Offsets
// and locks are the master's alone. Each new connection may lead to another master: it is told the offsets before the first pull, and also
// where nothing is pulled.
//
// The package makes no connections: the driver provides a [Network], sends the heartbeats that make it known to the
// brokers, and calls [Member.Rebalance] when the group, the topics or a connection changed.
package groupmember
