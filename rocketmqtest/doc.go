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
package rocketmqtest
