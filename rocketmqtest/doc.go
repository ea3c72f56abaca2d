// Package rocketmqtest is a RocketMQ 5 name server and broker in this process, for development and tests: it speaks the
// remoting protocol on loopback to the unmodified clients, keeps everything in memory, and can do what a real broker
// can't: fast-forward time, drop, delay or duplicate any request, lose what a crash loses, cut off a client, and show
// all that it holds.
//
//	func TestOrders(t *testing.T) {
//		mq := rocketmqtest.RunT(t)
//		client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, ...})
//		...
//		mq.FastForward(30 * time.Minute) // what is due by then is in its queue when this returns
//	}
//
// It is no production broker: one process, no disk, no replicas. Nothing that serves production imports it. What it does
// is what Apache RocketMQ 5.3.3 was seen to do, or another version where Config.Version says so; the suite in
// broker/brokertest and a list of raw requests run on it and on the real one, and their answers are compared.
//
// # What differs on purpose
//
//   - A request that can't be read is answered with what is wrong with it, where a real broker shows a Java stack trace
//     or, for offsets, nothing. The code is the same.
//   - What is acknowledged is visible at once: a topic in its route, a message to pulls. A real broker takes a moment.
//   - A topic is deleted with code 215 alone; a route that only the name server is told to forget (216) would come back
//     with a real broker's next registration, and here it never leaves.
//   - A client is gone when its connection is: not also after 120 s without a heartbeat, and not only then, as where a real
//     broker handles the end of a connection before a heartbeat that came on it.
//   - A committed offset of a queue that doesn't exist is taken and lost.
//   - Nobody may send to rmq_sys_wheel_timer (16). A real broker takes such a message, and all its timers stand still.
//   - A topic has at most 16384 queues.
//   - Filters by SQL are refused, as a real broker does by default. Groups have 16 retries unless the consumer says
//     otherwise, and one queue of retries; there is no request to change them, nor the broker's settings.
//   - Rounds of checks lie on a grid from the start, without the second that a real round sleeps where the markers have
//     nothing new; markers are written once in Config.OpBatchInterval, where 5.3.3 may take twice that.
//   - The commit of a half message whose topic is gone is refused. A real broker stores what nobody can read.
//   - A timer fires once, and a delay level goes on where it was, also after a crash. A real one may repeat seconds.
//   - Recall (370) is always on.
//   - FastForward moves what is stored: timers, delays, the age of half messages. Connections, heartbeats, long polls and
//     locks go by the machine's time, as the clients do that hold them; the born timestamp of what they send is
//     translated from it.
//   - Credentials are all or nothing: a user who is known may do anything.
package rocketmqtest
