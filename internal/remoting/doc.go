// Package remoting implements RocketMQ's remoting protocol for clients and servers: frames and their headers, request signatures,
// properties, records of the commit log, and connections. Package rocketmq uses it to call brokers and name servers, package rocketmqtest
// to be one:
//
//	conn, err := remoting.Dial(ctx, "127.0.0.1:9876", remoting.Credentials{}, nil)
//	response, err := conn.Call(ctx, &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": "orders"}})
//
// A frame consists of a length, the encoding and length of the header, the header, and a body; a [Command] is a frame's content. Both ends
// of a connection send requests. A response has the opaque number of its request, and bit 0 of its flag set.
package remoting
