// Package rocketmq is the driver for Apache RocketMQ: the broker port over rocketmq-client-go, and over a connection of
// its own for what that client can't do.
package rocketmq
