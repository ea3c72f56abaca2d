// Package rocketmqtest is a RocketMQ 5 name server and broker that runs inside a Go program, for tests and development. It
// speaks RocketMQ's remoting protocol on loopback to unmodified clients and keeps everything in memory. Use it to test code
// that talks to RocketMQ without Java, and to inject faults that a real broker can't produce at will. To test services of
// rocketflow use package rocketflowtest, which contains it.
//
//	func TestOrders(t *testing.T) {
//		mq := rocketmqtest.RunT(t)
//		mq.CreateTopic("orders", 4)
//		client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, ...})
//		...
//		mq.FastForward(30 * time.Minute) // timers that are due by then have been delivered when this returns
//	}
//
// It is no production broker: it has one process, no disk and no replicas, and it listens on loopback only.
//
// # Faults
//
// [Server.Control] calls a function for each request, which lets it pass, drops, delays, reorders or duplicates it, responds
// in the broker's place, or resets the connection; [Faults] does so at random, reproducible by a seed. [Server.Partition]
// separates clients from the server, [Server.Pause] freezes the broker, and [Server.Restart] restarts it with a chosen
// [Loss]. [Server.Dump], [Server.Messages] and [Server.Status] are snapshots of what it holds.
//
// # Fidelity
//
// It behaves as Apache RocketMQ 5.3.3 was observed to behave, or as another version that [Config].Version names. The
// conformance suite in broker/brokertest and a list of raw requests run on it and on a real RocketMQ, and the responses are
// compared. These differences are intended:
//
//   - A request that can't be decoded gets a response that names the bad field, where a real broker responds with a Java stack
//     trace or, for offsets, not at all. The code is the same.
//   - What was acknowledged is visible at once: a topic in its route, a message to pulls. A real broker takes a moment.
//   - A topic is deleted by code 215 alone. Code 216, which deletes a route at the name server, has no effect; on a real one
//     the route would come back with the broker's next registration.
//   - A client is removed when its connection ends, and only then. A real broker also removes it after 120 s without a
//     heartbeat; and it keeps one for that long if it handles the end of a connection before the last heartbeat on it.
//   - A committed offset of a queue that doesn't exist is accepted and lost.
//   - Sending to rmq_sys_wheel_timer is refused (16). A real broker accepts such a message, and all its timers stop.
//   - A topic has at most 16384 queues.
//   - Filters by SQL are refused, as a real broker does by default. Groups have 16 retries unless the consumer says
//     otherwise, and one queue of retries; there is no request to change them. Of the broker's settings only those that Config
//     has can be read, changed and felt, and a few more read and changed.
//   - Check-back rounds run at multiples of Config.CheckInterval, without the second that a real round sleeps if no new markers
//     exist. Markers are written once in Config.OpBatchInterval, where 5.3.3 may take twice that.
//   - The commit of a half message whose topic was deleted is refused. A real broker stores a message that can't be read.
//   - A timer fires once, and a delay level continues where it was, also after a crash. A real one may repeat seconds.
//   - Recall (370) is always enabled.
//   - FastForward affects stored messages: timers, delays, the age of half messages. Connections, heartbeats, long polls and
//     locks follow real time, as the clients do that hold them. The born timestamp of what clients send is translated.
//   - Grants of [Config].Users only allow: there is no Deny, no condition on addresses, and no request to change them.
//   - The proxy of [Config].Proxy is stateless beside the broker, so a restart of the broker removes the members of groups that came
//     through it, too; and it responds to every request in order.
//   - With [Config].TLS it takes TLS connections only, without it none. A real one takes both by default, with a certificate of its
//     own making.
package rocketmqtest
