// Package clusters has tests of a service on a RocketMQ of several servers, some of which die: `make test-clusters`, with
// ROCKETMQ=5.3.3 on another version, with KILLS=50 for more of them. They start real brokers, take minutes, and run in the nightly
// workflow.
package clusters
